"""A trainer: reads text, sends microbatches through the stages, holds no weights, needs no GPU.

Life of a trainer: syncing -> training (-> paused -> training) -> consensus, while its last samples
become part of steps -> serving -> left. The main thread waits; all happens in the network thread.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import psutil

from peers import bookmark
from peers.bookmark import Bookmark
from peers.give import serve_run_file
from peers.link import Link, Newcomer
from peers.reading import FellowReaders, furthest, told
from peers.station import LAST_S, Station, until
from swarmnet.boundary import Boundary
from swarmnet.config import RunConfig, RunFile
from swarmnet.data import Batches, Corpus
from swarmnet.errors import ConfigError, StopRequested
from swarmnet.events import FINISHED, PeerFinished, PeerStarted, TripsDone
from swarmnet.exchange.membership import Status
from swarmnet.model import ModelBuilder
from swarmnet.pipeline.flow import Flow
from swarmnet.pipeline.service import Limits
from swarmnet.pipeline.traveller import Traveller
from swarmnet.pipeline.trip import Finished, Load
from swarmnet.pipeline.trips import TripBook
from swarmnet.wire.invite import Invite

MOST_UNDER_WAY = 64
SETTLE_S = 60.0
"""Longest wait, at the end, for the last samples to become part of steps."""
POLL_S = 0.05
REPORT_S = 1.0
SMOOTHING = 0.2
BOOKMARK_S = 5.0
"""How much reading a kill may repeat."""
FORGET_S = 0.5
"""For the letters by which stages let their caches go."""
_log = logging.getLogger(__name__)
WINDS_DOWN = ("training", "paused", "consensus")


class TrainerPeer:
    """One trainer process. ``run`` returns the process's exit code."""

    def __init__(self, station: Station, invite: Invite, given: bytes | None = None) -> None:
        self.station = station
        self._invite = invite
        self._given = given
        self.state = "syncing"
        self._before: Bookmark
        """What earlier lives of this trainer have done."""
        self._tokens = 0
        self._rate = 0.0
        self._next = 0
        self._began: float | None = None
        self._marked = time.monotonic()
        self._ended: list[Finished] = []
        self._reported = time.monotonic()
        self._left = False
        """Told to leave before the run was over."""
        self.run_file: RunFile
        self.link: Link
        self.traveller: Traveller

    def run(self) -> int:
        """Send microbatches until the run is over. Raises SwarmnetError."""
        station = self.station
        newcomer = Newcomer(station, self._invite, self._given)
        self.link = newcomer.enter(self._status, self._read)
        self._fellows = FellowReaders(self.link, "trainer")
        try:
            station.run(self._live(), winds_down=lambda: self.state in WINDS_DOWN)
            reason = f"left: {station.stop.reason}" if self._left else FINISHED
        except StopRequested:
            reason = f"left: {station.stop.reason}"
        finally:
            station.net.run(self.link.leave())
        self._log_finished(reason)
        return 0 if reason == FINISHED else StopRequested.exit_code

    # ---- life ---------------------------------------------------------------------------------

    async def _live(self) -> None:
        await self._open()
        self._batches.sharing.catch_up(furthest(self._fellows.view()))
        self._change_state("training")
        running = [
            asyncio.create_task(work)
            for work in (self.traveller.run(), self.link.node.wait_failed(), self._report())
        ]
        try:
            end = asyncio.create_task(self._until_over())
            await asyncio.wait([*running, end], return_when=asyncio.FIRST_COMPLETED)
            for task in (*running, end):
                if task.done():
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(FORGET_S):
                    await self.traveller.farewell()
            await self.traveller.post.close()
            await self._mark()
        self._tell()

    async def _open(self) -> None:
        run, me = self.run_file.config, self.link.node.me
        stages = run.pipeline.stages
        rng = random.Random(f"{run.seed} {me}")
        wirings = [run.wiring.build("wiring", rng) for _ in range(stages)]
        most = max(MOST_UNDER_WAY, 2 * stages)
        flow = Flow(stages, most, most_unsettled=most + 4 * self._per_step)
        book = TripBook(me, self.station.incarnation, wirings, flow)
        limits = self._limits(run) if run.pipeline.handover == "hub" else None
        self.traveller = Traveller(self.link.node, book, self._load, limits)
        self.traveller.view = self._view
        self.traveller.finished = self._note
        await self.link.give(partial(serve_run_file, self.run_file.raw))
        await self.traveller.open()

    async def _until_over(self) -> None:
        """The target is reached, the last trips ended, their samples part of steps."""
        book = self.traveller.book
        while not self._over():
            if self.station.stop:
                # Nothing new begins; what is under way may end, so that it counts at every stage.
                self._left = True
                await until(lambda: not book.under_way, time.monotonic() + self._patience_s())
                return
            paused = self.link.rests(self._progress())
            if paused != (self.state == "paused"):
                self._change_state("paused" if paused else "training")
            if time.monotonic() > self._marked + BOOKMARK_S:
                await self._mark()
            await asyncio.sleep(POLL_S)
        deadline, stop = time.monotonic() + SETTLE_S, self.station.stop
        await until(lambda: not book.under_way or bool(stop), deadline)
        self._change_state("consensus")
        # What a stage drops now is on its way again before it settles.
        await until(lambda: not (book.under_way or book.unsettled) or bool(stop), deadline)
        self._left = bool(stop) and bool(book.under_way or book.unsettled)
        self._change_state("serving")

    def _patience_s(self) -> float:
        """With trips under way, once told to leave."""
        return self.station.left_s() - LAST_S - FORGET_S

    # ---- data ---------------------------------------------------------------------------------

    def _read(self, run_file: RunFile) -> None:
        self.run_file = run_file
        run, peer = self.run_file.config, self.station.peer
        if run.pipeline.stages < 2:
            raise ConfigError("this run has no stages: trainers are for runs with [pipeline]")
        builder: ModelBuilder = run.model.build("model", peer.models)
        self._width = builder.plan(run.pipeline.stages).width
        corpus: Corpus = run.data.build("data", builder.tokenizer(), peer.texts, peer.cache)
        me = self.station.identity.peer_id
        self._batches = Batches(corpus.train, run, me)
        begin = Bookmark(run=run_file.fingerprint, peer=me, corpus=corpus.hash)
        self._turn_to(bookmark.find(self.station.out, begin), begin)
        self.station.log.emit(
            PeerStarted(
                role="trainer",
                run=run.name,
                fingerprint=self.run_file.fingerprint,
                peer_id=me,
                corpus=corpus.hash,
            )
        )

    def _turn_to(self, mark: Bookmark, begin: Bookmark) -> None:
        """Go on where an earlier life was."""
        if mark.reading is not None:
            try:
                self._batches.resume(mark.reading)
            except (KeyError, TypeError, ValueError) as error:
                _log.warning("the place in the text cannot be used, reading begins anew: %s", error)
                mark = begin
        self._before, self._tokens, self._next = mark, mark.tokens, mark.begun

    async def _mark(self) -> None:
        self._marked = time.monotonic()
        if self._next == self._before.begun:
            return  # nothing read yet: what lies there may be another run's
        now = {
            "begun": self._next,
            "tokens": self._tokens,
            "elapsed_s": self.link.progress.elapsed_s(self._elapsed_s()),
            "reading": self._batches.position(),
        }
        mark = self._before.model_copy(update=now)
        await asyncio.to_thread(bookmark.keep, self.station.out, mark)

    def _limits(self, run: RunConfig) -> Limits:
        """The largest microbatch and boundary that may pass through this trainer."""
        boundary: Boundary = run.boundary.build("boundary")
        batch = run.batch
        largest = boundary.max_nbytes(batch.sequences * batch.length, self._width)
        return Limits(batch.sequences, batch.length, largest, largest)

    def _load(self) -> Load | None:
        if self.state != "training" or self._over() or self.station.stop:
            return None
        batch = self.run_file.config.batch
        ids = self._batches.next(self._fellows.view()).numpy().astype(np.int32)
        for event in told(self._batches.sharing.finished()):
            self.station.log.emit(event)
        self._next += 1
        if self._began is None:
            self._began = time.monotonic()
            self.link.phonebook.nudge()
        return Load(batch.sequences, batch.length, memoryview(ids.tobytes()))

    # ---- numbers --------------------------------------------------------------------------------

    @property
    def _per_step(self) -> int:
        """Microbatches behind one step."""
        run = self.run_file.config
        return -(-run.pipeline.batch // run.batch.sequences)

    def _view(self) -> Mapping[int, Sequence[str]]:
        stages = self.link.stages()
        if self.run_file.config.pipeline.step == "apart":
            # Every peer of every stage may hold nearly a share of its own.
            peers = sum(map(len, stages.values()))
            self.traveller.book.flow.most_unsettled = MOST_UNDER_WAY + (4 + peers) * self._per_step
        return stages

    def _over(self) -> bool:
        return self._progress() >= 1 or self.link.phonebook.order == "end"

    def _progress(self) -> float:
        return self.link.progress.share(self._tokens, self._elapsed_s())

    def _elapsed_s(self) -> float:
        since = time.monotonic() - self._began if self._began is not None else 0.0
        return self._before.elapsed_s + since

    def _status(self) -> Status:
        span = self._batches.sharing.span
        return Status(
            incarnation=0,
            counter=0,
            state=self.state,
            role="trainer",
            tokens=self._tokens,
            elapsed_s=self._elapsed_s(),
            step=self._next,
            rate=self._rate,
            since=span.since,
            read=span.read,
        )

    def _change_state(self, state: str) -> None:
        self.state = state
        self.link.phonebook.nudge()

    def _note(self, done: Finished) -> None:
        self._tokens += done.tokens
        self._ended.append(done)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._tell()

    def _tell(self) -> None:
        ended, self._ended = self._ended, []
        now = time.monotonic()
        seconds, self._reported = now - self._reported, now
        tokens = sum(done.tokens for done in ended)
        self._rate += SMOOTHING * (tokens / max(seconds, 1e-3) - self._rate)
        book = self.traveller.book
        ledger = book.ledger
        self.station.log.emit(
            TripsDone(
                begun=ledger.begun,
                open=book.under_way,
                whole=ledger.whole,
                settled=ledger.settled,
                attempts=ledger.attempts,
                causes=dict(ledger.causes),
                trips=len(ended),
                tokens=tokens,
                loss=_mean([done.loss for done in ended]),
                seconds=_mean([done.seconds for done in ended]),
                window=book.flow.window,
                progress=self._progress(),
                unserved=book.unserved(),
            )
        )

    def _log_finished(self, reason: str) -> None:
        ledger = self.traveller.book.ledger
        self.station.log.emit(
            PeerFinished(
                reason=reason,
                steps=ledger.begun,
                tokens=self._tokens,
                ok=ledger.settled,
                solo=0,
                failed=ledger.begun - ledger.settled,
                bytes_sent=self.traveller.post.bytes_sent,
                train_s=self._elapsed_s(),
                stall_s=0.0,
                memory=psutil.Process().memory_info().rss,
            )
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def train(station: Station, invite: Invite, given: bytes | None = None) -> int:
    """Run a trainer to its end. Raises SwarmnetError."""
    try:
        return TrainerPeer(station, invite, given).run()
    finally:
        station.close()
