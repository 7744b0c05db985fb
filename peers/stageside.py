"""One stage at one peer: its weights, its service, its steps, joined to the process's link."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from peers.give import Portrait
from peers.link import Link
from peers.station import Station
from swarmnet.boundary import Boundary
from swarmnet.config import RunConfig
from swarmnet.errors import MessageError, StorageError
from swarmnet.events import CheckpointWritten, Event, SamplesLost, StageLoad, StageStepped
from swarmnet.exchange.claims import Ids
from swarmnet.exchange.links import Links
from swarmnet.exchange.payload import Offload
from swarmnet.exchange.transport import Transport
from swarmnet.model import ModelBuilder, StageModule
from swarmnet.pipeline.assembly import Assembly, View
from swarmnet.pipeline.assembly import Place as StagePlace
from swarmnet.pipeline.past import Commit, Past
from swarmnet.pipeline.service import Limits, StageService
from swarmnet.pipeline.stagebook import Place, StageBook
from swarmnet.pipeline.stepping import Company, Stepping
from swarmnet.train import checkpoint
from swarmnet.train.gradients import GradientCargo
from swarmnet.train.loop import choose_device
from swarmnet.train.replica import Replica
from swarmnet.train.schedule import rate
from swarmnet.train.stage import StageCore
from swarmnet.train.stageworks import StageWorks
from swarmnet.train.sums import Sums
from swarmnet.wire.messages import Digest, Message, Tally

TELL_S = 0.1
REPORT_S = 1.0
SMOOTHING = 0.2
MATES = ("training", "consensus", "serving")


@dataclass(frozen=True)
class Load:
    """Sequences per second: what this peer serves while it is busy, and what was asked of it."""

    rate: float
    demand: float


@dataclass(frozen=True)
class _Tools:
    transport: Transport
    links: Links
    offload: Offload
    clock: Callable[[], float] = time.monotonic


class StageSide:
    """Implements ``stepping.Stage`` and ``stepping.Sight`` over a compute core.

    Built in the compute thread, joined and used in the network's loop.
    """

    stepping: Stepping
    service: StageService

    def __init__(self, station: Station, run: RunConfig, module: StageModule) -> None:
        self.stage = module.index
        self.layers = module.layers
        self.steps = 0
        self.missed = False
        """A step was missed: the state of a mate is needed."""
        self._station = station
        self._run = run
        self._module = module
        boundary: Boundary = run.boundary.build("boundary")
        self.replica = Replica(module, run, seed=station.incarnation)

        def constrain(stage: Any) -> None:
            boundary.constrain(stage, module.first, module.last)

        self.core = StageCore(self.replica, constrain=constrain)
        self.works = StageWorks(self.core, module, boundary, station.incarnation)
        tokens = run.batch.sequences * run.batch.length
        largest = boundary.max_nbytes(tokens, module.width)
        self._limits = Limits(run.batch.sequences, run.batch.length, largest, largest)
        self._past = Past()
        self._donors: tuple[str, ...] = ()
        self._rate = self._demand = self._busy_s = 0.0
        self._slowdown = station.peer.slowdown

    @classmethod
    def build(cls, station: Station, run: RunConfig, stage: int) -> StageSide:
        peer = station.peer
        if peer.threads:
            import torch

            torch.set_num_threads(peer.threads)
        builder: ModelBuilder = run.model.build("model", peer.models)
        boundary: Boundary = run.boundary.build("boundary")
        module = builder.stage(run.seed, stage, run.pipeline.stages, boundary)
        return cls(station, run, module.to(choose_device(peer.device)))

    def join(self, link: Link, thread: ThreadPoolExecutor) -> None:
        """From here on in the network's loop."""
        run, me, node = self._run, link.node.me, link.node
        self._link = link

        async def lane(work: Callable[..., Any], *arguments: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(
                thread, self._slowed, work, *arguments
            )

        place = StagePlace(
            me,
            self.stage,
            run.pipeline.stages,
            run.pipeline.batch * run.batch.length,
            patience_s=20.0,
        )
        self._assembly = Assembly(place, self._past)
        book = StageBook(Place(me, self.stage, run.pipeline.stages), self._committed)
        self.service = StageService(node, book, self.works, lane, self._limits)
        company = Company(
            tools=_Tools(node, Links(), asyncio.to_thread),
            sight=self,
            stage=self,
            cargo=GradientCargo(
                self.replica, self.stage, repr(run.codec), self._station.incarnation
            ),
            incarnation=self._station.incarnation,
        )
        self.stepping = Stepping(company, self._assembly, syncing=True)
        self.service.extra = self._hear
        self.service.counted = self.stepping.counted

    async def open(self) -> None:
        await self.service.open()
        await self.stepping.open()

    async def close(self) -> None:
        await self.service.post.close()

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What runs while this stage is served."""
        return [self.service.run(), self.stepping.run(), self._tell(), self._report()]

    # ---- for the role -------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Steps behind the weights that serve."""
        return self._assembly.past.step

    @property
    def past(self) -> Past:
        """Of the weights as they are now: read it in the compute thread, with them."""
        return self._past

    @property
    def parameters(self) -> int:
        return self.replica.theta.numel()

    @property
    def state_bytes(self) -> int:
        return sum(4 * tensor.numel() for tensor in self.replica.tensors().values())

    @property
    def empty(self) -> bool:
        """Nothing is held that no step has, and none is being taken."""
        return not self.service.book.held and self.stepping.settled

    def weights_hash(self) -> str:
        return self.replica.weights_hash()

    def tensors(self) -> dict[str, Tensor]:
        return self.replica.tensors()

    def load(self) -> Load:
        return Load(self._rate, self._demand)

    def donors(self) -> list[str]:
        """Mates that serve, those first that are known to be ahead, then the furthest."""
        members = self._link.membership
        steps = {
            peer: status.step
            for peer in self._link.stages().get(self.stage, ())
            if (status := members.status(peer)) is not None and status.step >= self.version
        }
        return sorted(steps, key=lambda peer: (peer not in self._donors, -steps[peer], peer))

    async def adopt(self, portrait: Portrait | None, newest: int | None) -> None:
        """Go on from a state; None: from the run's seed. ``newest``: the step of the other stages.

        Raises:
            PayloadError: the state does not fit; nothing is changed.
        """
        past = Past() if portrait is None else Past.unpack(portrait.facts["past"])
        if newest is not None and past.step < newest:
            past = past.at(newest)  # nobody else has this stage: the others must not wait for it
        if portrait is not None:
            tensors, version = portrait.tensors, past.step

            def load() -> None:
                self.core.load(tensors, version, met=True)
                self._past = past

            await self.service.exclusively(load)
        self.missed = False
        self.service.book.steps[self.stage] = past.step
        self.stepping.restored(past)

    async def stay(self) -> None:
        """Nobody is left who was ahead."""
        self.missed = False
        self.stepping.restored(self._past)

    def write(self, folder: Path, portrait: Portrait) -> None:
        """A checkpoint, in any thread; a refusing disk is an event, not an end."""
        began, size, problem = time.monotonic(), 0, ""
        past = dict(portrait.facts["past"])
        past["commits"] = [(step, ids.hex()) for step, ids in past["commits"]]
        try:
            facts = {**portrait.facts, "past": past}
            size = checkpoint.write(folder, portrait.tensors, facts)
        except StorageError as error:
            problem = str(error)
        seconds = time.monotonic() - began
        self._emit(CheckpointWritten(portrait.facts["step"], seconds, size, problem))

    # ---- what stepping asks for (Stage) ---------------------------------------------------------

    @property
    def tokens(self) -> int:
        return self.core.tokens

    @property
    def samples(self) -> Collection[int]:
        return self.core.samples

    async def freeze(self) -> Sums:
        def freeze() -> tuple[list[int], Sums]:
            weighed: list[int] = []
            while self.core.waiting:
                weighed += self.core.weigh()
            return weighed, self.core.freeze()

        sums: Sums
        weighed, sums = await self.service.exclusively(freeze)
        self.service.perform(self.service.book.weighed(weighed))
        return sums

    async def put_back(self, sums: Any) -> None:
        await self.service.exclusively(lambda: self.core.put_back(sums))

    async def discard(self, sums: Any) -> None:
        await self.service.exclusively(lambda: self.core.discard(sums))

    async def drop(self) -> Collection[int]:
        dropped: tuple[int, ...] = await self.service.exclusively(self.core.drop)
        return dropped

    async def step(self, mean: Tensor, commit: Commit) -> None:
        began = time.monotonic()
        lr = self._lr(commit.past)

        def move() -> None:
            self.core.step(mean, lr)
            self._past = commit.past

        await self.service.exclusively(move)
        self.steps += 1
        book = self.service.book
        own = sum(sample in book.held for sample in commit.ids)
        book.steps[self.stage] = commit.past.step
        self.service.perform(book.commit(commit.ids, commit.past.step))
        self._emit(
            StageStepped(
                stage=self.stage,
                step=commit.past.step,
                members=sum(work > 0 for work in commit.works.values()),
                samples=len(commit.ids),
                own=own,
                tokens=commit.tokens,
                lr=lr,
                seconds=time.monotonic() - began,
                lineage=commit.past.lineage,
                progress=self._progress(commit.past),
            )
        )

    def lost(self, samples: Ids) -> None:
        self.service.perform(self.service.book.void(samples, self.version))
        self._emit(SamplesLost(self.stage, len(samples)))

    def behind(self, donors: tuple[str, ...]) -> None:
        self._donors, self.missed = donors, True

    # ---- what stepping asks for (Sight) ---------------------------------------------------------

    def view(self) -> View:
        members, me = self._link.membership, self._link.node.me
        steps = {s: n for s, n in self.service.book.steps.items() if s != self.stage}
        stages = self._link.stages(MATES)
        for stage, peers in stages.items():
            for peer in peers:
                status = members.status(peer)
                if stage != self.stage and status is not None:
                    steps[stage] = max(steps.get(stage, 0), status.step)
        mates = frozenset(stages.get(self.stage, ())) - {me}
        return View(mates, steps)

    def digest(self) -> Digest:
        phonebook, members = self._link.phonebook, self._link.membership
        return members.digest(phonebook.mine(), time.monotonic())

    def heard(self, peer: str, digest: Digest | None) -> None:
        self._link.membership.hear(peer, digest, time.monotonic())

    # ---- inside -----------------------------------------------------------------------------

    def _committed(self, sample: int) -> bool:
        return self.stepping.committed(sample)

    def _hear(self, peer: str, letter: Message) -> None:
        if not isinstance(letter, Tally):
            raise MessageError(f"{letter.kind.name} is for nobody here")
        self.stepping.hear(peer, letter)

    def _lr(self, past: Past) -> float:
        run = self._run
        return rate(self._progress(past), run.inner.config("inner").lr, run.schedule)

    def _progress(self, past: Past) -> float:
        """The same at every peer of the stage, whatever their clocks say."""
        target = self._run.target
        elapsed = past.elapsed_s / (60 * target.minutes)
        return min(1.0, max(past.committed / target.tokens, elapsed))

    def _emit(self, event: Event) -> None:
        self._station.log.emit(event)

    def _slowed(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """In the compute thread, as long as it would take on a slower machine."""
        began = time.perf_counter()
        result = work(*arguments)
        seconds = time.perf_counter() - began
        self._busy_s += seconds * self._slowdown
        if self._slowdown > 1:
            time.sleep((self._slowdown - 1) * seconds)
        return result

    async def _tell(self) -> None:
        """My tally to my mates whenever it changed, and now and then."""
        told: Tally | None = None
        told_at = 0.0
        while True:
            tally, now = self.stepping.tally(), time.monotonic()
            if tally is not None and (tally != told or now > told_at + REPORT_S):
                told, told_at = tally, now
                for mate in self.view().mates:
                    self.service.post.send(mate, tally)
            await asyncio.sleep(TELL_S)

    async def _report(self) -> None:
        """What was done since the last time, for the log and for whoever decides on places."""
        book, since, served, asked = self.service.book, time.monotonic(), 0, 0
        while True:
            await asyncio.sleep(REPORT_S)
            now, busy_s = time.monotonic(), self._busy_s
            sequences, wanted = book.served - served, book.asked - asked
            served, asked, self._busy_s = book.served, book.asked, 0.0
            seconds, since = now - since, now
            if sequences:
                self._rate += SMOOTHING * (sequences / max(busy_s, 1e-3) - self._rate)
            self._demand += SMOOTHING * (wanted / seconds - self._demand)
            waiting, under_way = book.load
            self._emit(
                StageLoad(
                    stage=self.stage,
                    step=self.version,
                    waiting=waiting,
                    under_way=under_way,
                    held=len(book.held),
                    sequences=sequences,
                    busy_s=busy_s,
                    seconds=seconds,
                    recomputed=self.works.recomputed,
                    refused=sum(self.service.refusals.values()),
                )
            )
