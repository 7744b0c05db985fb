"""One light peer for ``kills.py``: real meetings over Unix sockets, real checkpoints, no model.

It adds noise to a vector, meets the others with the machines, desk and ledger of a worker, and
writes checkpoints with a worker's keeper. Whatever a kill must not undo for the judge stands in a
journal, a line at a time: where each life began, and which rounds it decided.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peers.keeper import Keeper
from peers.portrait import Portrait
from swarmnet.cadence.every_h import EveryH
from swarmnet.config import PeerConfig
from swarmnet.errors import LinkError, StreamCut
from swarmnet.events import CheckpointPassedOver
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.ledger import Open
from swarmnet.exchange.links import Links
from swarmnet.exchange.membership import Membership, Status
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.transport import Handler
from swarmnet.exchange.window import Window
from swarmnet.matching.random_pairs import RandomPairs
from swarmnet.net.pipe import Pipe
from swarmnet.net.stream import P2pStream
from swarmnet.sim.vector import VectorSubject
from swarmnet.wire import Frame, Kind

SIZE, PAYLOAD_BYTES = 64, 1 << 18
STEP_S, H, CHECKPOINT_S = 0.01, 2, 0.03
LATENCY_S = 0.01
BREAKS = {Kind.HAVE: 0.2, Kind.ASK: 0.7}
"""How often a frame breaks its link: questions arise, and stay open until a checkpoint has them."""
CALM_S = 0.5
HELLO_BYTES = 64
ROUNDS_EACH = 1 << 16
"""Rounds of peers are set apart by this, so that a round says whose it is."""
JOURNAL, SETTLED, DONE = "journal.jsonl", "settled", "done"
CALM, STOP = "calm", "stop"
"""What the parent says, by files in the root: no more kills; nobody has questions any more."""
FINGERPRINT = "kills"


class Shaky(P2pStream):
    """A link that takes its time, and in the storm breaks now and then where a cut leaves a
    question: one that came up after all had settled theirs would never be asked."""

    def __init__(self, peer: str, pipe: Pipe, calm: Callable[[], bool]) -> None:
        super().__init__(peer, pipe)
        self._calm = calm

    async def send(self, frame: Frame, deadline_s: float) -> None:
        await asyncio.sleep(LATENCY_S * random.random())
        if not self._calm() and random.random() < BREAKS.get(frame.kind, 0.0):
            await self.close()
            raise StreamCut("the cable was cut")
        await super().send(frame, deadline_s)


class Sockets:
    """``exchange.transport.Transport`` over Unix sockets in one folder."""

    def __init__(self, me: str, folder: Path, calm: Callable[[], bool]) -> None:
        self.me = me
        self._folder = folder
        self._calm = calm
        self._handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        path = self._folder / self.me
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.setblocking(False)
        server.bind(str(path))
        server.listen(64)
        self._keep(self._accept(server))

    async def serve(self, topic: str, handler: Handler) -> None:
        self._handlers[topic] = handler

    async def open(self, peer: str, topic: str, deadline_s: float) -> Shaky:
        try:
            pipe = Pipe.connect(self._folder / peer)
        except OSError as error:
            raise LinkError(f"{peer}: {error}") from error
        hello = json.dumps([self.me, topic]).encode().ljust(HELLO_BYTES)
        await pipe.send(hello, b"", deadline_s)
        return Shaky(peer, pipe, self._calm)

    async def _accept(self, server: socket.socket) -> None:
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(server)
            self._keep(self._answer(Pipe(client)))

    async def _answer(self, pipe: Pipe) -> None:
        try:
            peer, topic = json.loads(bytes(await pipe.receive(HELLO_BYTES, 5.0)))
            await self._handlers[topic](Shaky(peer, pipe, self._calm))
        except LinkError:
            pass
        finally:
            pipe.close()

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True)
class Place:
    """Who this peer is, among whom, in which of its lives."""

    index: int
    names: tuple[str, ...]
    root: Path
    life: int

    @property
    def me(self) -> str:
        return self.names[self.index]

    @property
    def out(self) -> Path:
        return self.root / self.me


@dataclass
class Book:
    """What meetings did to the vector: (partner, round) and the move of each."""

    keys: list[tuple[str, int]] = field(default_factory=list)
    moves: list[np.ndarray] = field(default_factory=list)


class KilledPeer:
    """One life of one peer."""

    def __init__(self, place: Place) -> None:
        self._place = place
        rng = np.random.default_rng(place.index)
        self.subject = VectorSubject(rng.normal(size=SIZE), PAYLOAD_BYTES)
        self._started = self.subject.live.copy()
        self._added = np.zeros(SIZE)
        self._noise = np.random.default_rng([place.index, place.life])
        self._book = Book()
        self._moves: list[np.ndarray] = []
        self._steps = 0
        self._passed_over = 0
        peer = PeerConfig(checkpoint_s=CHECKPOINT_S, checkpoints=3, hourly=0)
        self._keeper = Keeper(place.out, FINGERPRINT, peer, self._note)
        self._journal = os.open(place.out / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._members = Membership(place.me, 1e6)
        for number, name in enumerate(place.names):
            if number != place.index:
                self._members.observe(name, Status(1, 1, "training"), time.monotonic())
        for name in ("apply_met", "apply_late"):
            setattr(self.subject, name, self._noting(getattr(self.subject, name)))

    def live(self) -> None:
        """Until the parent kills this process."""
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._open(), loop).result()
        self._meetings = asyncio.run_coroutine_threadsafe(self._gossip.run(), loop)
        self._keeper.begin()
        quiet_since = None
        while quiet_since is None or time.monotonic() < quiet_since + CALM_S:
            self._step()
            quiet = self._told(CALM) and not self._gossip.pending.owed()
            quiet_since = (quiet_since or time.monotonic()) if quiet else None
        (self._place.out / SETTLED).touch()
        self._end()

    def _end(self) -> None:
        """All have settled their questions when the parent says so: no more meetings."""
        while not self._told(STOP):
            self._step()
        self._gossip.paused = True
        quiet_since = time.monotonic()
        while time.monotonic() < quiet_since + CALM_S:
            self._boundary()
            if not self._gossip.free or not self._desk.all_applied:
                quiet_since = time.monotonic()
            time.sleep(STEP_S)
        self._keeper.write(self._portrait, wait=True)
        (self._place.out / DONE).touch()
        while True:
            time.sleep(1.0)

    def _told(self, word: str) -> bool:
        return (self._place.root / word).exists()

    # ---- building -------------------------------------------------------------------------------

    async def _open(self) -> None:
        place = self._place
        transport = Sockets(place.me, place.root / "sockets", lambda: self._told(CALM))
        rng = random.Random(f"{place.index} {place.life}")
        window = Window(
            place.me, EveryH(EveryH.Config(h=H)), RandomPairs(RandomPairs.Config()), rng
        )
        self._desk = Desk(self.subject, window.welcome_at)
        around = Surroundings(
            transport=transport,
            membership=self._members,
            links=Links(),
            mine=lambda: Status(1, int(1000 * time.monotonic()), "training"),
            offload=asyncio.to_thread,
            emit=lambda event: None,
        )
        self._gossip = Gossip(around, window, self._desk, self.subject, place.life)
        self._gossip._round += place.index * ROUNDS_EACH
        self._watch_decisions()
        self._watch_questions()
        self._resume()
        await transport.start()
        await self._gossip.open()
        self._gossip.stance = "train"

    def _watch_decisions(self) -> None:
        commit = self._gossip.decisions.commit

        def journalled(peer: str, round_: int) -> bool:
            decided = commit(peer, round_)
            if decided:
                self._write(commit=[peer, round_])
            return decided

        self._gossip.decisions.commit = journalled  # type: ignore[method-assign]

    def _watch_questions(self) -> None:
        """Whatever is owed no longer, and was not answered either, was given up."""
        pending = self._gossip.pending

        def journalled(change: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*arguments: Any) -> Any:
                before, result = pending.owed(), change(*arguments)
                for item in set(before) - set(pending.owed()):
                    self._write(given_up=[item.peer, item.round])
                return result

            return changed

        for name in ("add", "expire"):
            setattr(pending, name, journalled(getattr(pending, name)))

    def _resume(self) -> None:
        kept = self._keeper.read(lambda _: None)
        facts = kept.facts if kept is not None else {"step": None, "questions": []}
        self._write(
            life=self._place.life,
            step=facts["step"],
            asked=[question[:2] for question in facts["questions"]],
            passed_over=self._passed_over,
        )
        if kept is None:
            return
        tensors = {n: t.numpy().copy() for n, t in kept.tensors.items()}
        self.subject.live[:] = tensors["live"]
        self._added, self._steps = tensors["added"], facts["step"]
        self._book = Book([(p, r) for p, r in facts["book"]], list(tensors["moves"]))
        self._gossip.window.recall(facts["window"])
        self._gossip.remember([(p, r) for p, r in facts["in_weights"]])
        self._gossip.recall(
            Open(peer, round_, tensors[f"open.{number}"], 0, step=step)
            for number, (peer, round_, step) in enumerate(facts["questions"])
        )

    # ---- training -------------------------------------------------------------------------------

    def _step(self) -> None:
        self._boundary()
        if self._keeper.due and not self._keeper.busy and self._desk.all_applied:
            self._keeper.write(self._portrait, wait=False)
        time.sleep(STEP_S)
        increment = self._noise.normal(size=SIZE)
        self.subject.live += increment
        self._added += increment
        self._steps += 1

    def _boundary(self) -> None:
        if self._meetings.done():
            self._meetings.result()  # a bug: nobody else would say so
        events = self._desk.boundary(self._steps, 0.0)
        met = [event for event in events if event.outcome in ("ok", "late")]
        for event, move in zip(met, self._moves, strict=True):
            self._book.keys.append((event.partner, event.round))
            self._book.moves.append(move)
        self._moves.clear()

    def _noting(self, apply: Callable[..., None]) -> Callable[..., None]:
        def noted(*arguments: Any) -> None:
            before = self.subject.live.copy()
            apply(*arguments)
            self._moves.append(self.subject.live - before)

        return noted

    def _portrait(self) -> Portrait:
        questions = self._gossip.pending.owed()
        tensors = {
            "live": self.subject.live.copy(),
            "started": self._started,
            "added": self._added.copy(),
            "moves": np.array(self._book.moves).reshape(-1, SIZE),
        }
        tensors |= {f"open.{n}": q.correction.copy() for n, q in enumerate(questions)}
        facts = {
            "fingerprint": FINGERPRINT,
            "step": self._steps,
            "elapsed_s": 0.0,
            "book": list(self._book.keys),
            "window": self._gossip.window.memory(),
            "in_weights": list(self._gossip.settling.in_weights),
            "questions": [(q.peer, q.round, q.step) for q in questions],
        }
        return Portrait({n: torch.from_numpy(v) for n, v in tensors.items()}, facts)

    # ---- for the judge --------------------------------------------------------------------------

    def _note(self, event: Any) -> None:
        self._passed_over += isinstance(event, CheckpointPassedOver)
        if getattr(event, "error", ""):
            self._write(refused=event.error)

    def _write(self, **line: Any) -> None:
        os.write(self._journal, json.dumps(line).encode() + b"\n")


def live(place: Place) -> None:
    """In the child; the parent's death ends it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    random.seed(f"{place.index} {place.life}")
    with suppress(KeyboardInterrupt):
        KilledPeer(place).live()
