"""One stage at one peer: its weights, its service, its steps, joined to the process's link."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor

from peers.link import Link
from peers.portrait import Portrait
from peers.station import Station
from peers.steps import Ground, progress
from swarmnet.boundary import Boundary
from swarmnet.config import RunConfig
from swarmnet.errors import PayloadError
from swarmnet.events import Event, SamplesLost, StageLoad, StageStepped
from swarmnet.exchange.links import Links
from swarmnet.exchange.payload import Offload
from swarmnet.exchange.transport import Transport
from swarmnet.model import ModelBuilder, StageModule
from swarmnet.pipeline.assembly import Place, View
from swarmnet.pipeline.past import Commit, Past
from swarmnet.pipeline.served import ServedStage, Setting
from swarmnet.pipeline.service import Limits
from swarmnet.train.gradients import GradientCargo
from swarmnet.train.loop import choose_device
from swarmnet.train.replica import Replica
from swarmnet.train.schedule import rate
from swarmnet.train.stage import StageCore
from swarmnet.train.stageworks import StageWorks
from swarmnet.wire.messages import Digest

GPU_AT_ONCE = 4
"""A GPU computes several short sequences in about the time of one; a CPU thread gains nothing."""
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
    """Implements ``served.Watch`` and ``stepping.Sight`` over a compute core.

    Built in the compute thread, joined and used in the network's loop.
    """

    served: ServedStage

    def __init__(self, station: Station, run: RunConfig, module: StageModule) -> None:
        self.stage = module.index
        self.layers = module.layers
        self.steps = 0
        self.missed = False
        """A step was missed: what mates have of it is needed."""
        self.placed = False
        """There is a state of this stage from which steps can be followed."""
        self._station = station
        self._run = run
        self._module = module
        boundary: Boundary = run.boundary.build("boundary")
        self.replica = Replica(module, run, seed=station.seed, part=module.index)

        def constrain(stage: Any) -> None:
            boundary.constrain(stage, module.first, module.last)

        self.core = StageCore(self.replica, constrain=constrain, delayed=run.pipeline.delayed)
        self.works = StageWorks(self.core, module, boundary, station.incarnation)
        tokens = run.batch.sequences * run.batch.length
        largest = boundary.max_nbytes(tokens, module.width)
        self._limits = Limits(run.batch.sequences, run.batch.length, largest, largest)
        self._donors: tuple[str, ...] = ()
        self._draft: dict[str, Tensor] | None = None
        self._rate = self._demand = self._busy_s = 0.0
        self._slowdown = station.peer.slowdown

    @classmethod
    def build(cls, station: Station, run: RunConfig, stage: int) -> StageSide:
        peer = station.peer
        if peer.threads:
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

        on_cpu = self.replica.theta.device.type == "cpu"
        setting = Setting(
            tools=_Tools(node, Links(), asyncio.to_thread),
            sight=self,
            works=self.works,
            core=self.core,
            lane=lane,
            cargo=GradientCargo(
                self.replica, self.stage, repr(run.codec), self._station.incarnation
            ),
            limits=self._limits,
            incarnation=self._station.incarnation,
            at_once=self._station.peer.at_once or (1 if on_cpu else GPU_AT_ONCE),
            copy=lambda mean: mean.detach().to("cpu", torch.float32, copy=True),
            free=lambda: psutil.virtual_memory().available,
        )
        target = run.pipeline.batch * run.batch.length
        place = Place(me, self.stage, run.pipeline.stages, target)
        self._progress = progress(run, link)
        ground = Ground(run, link, self.replica, self._emit)
        self.served = ServedStage(place, setting, self, ground.steps)

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What runs while this stage is served."""
        return [*self.served.tasks(), self._report()]

    # ---- for the role -------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Steps behind the weights that serve."""
        return self.served.stepping.past.step

    @property
    def parameters(self) -> int:
        return self.replica.theta.numel()

    def draft(self) -> dict[str, Tensor]:
        """Where a mate's state arrives; until it is adopted, a part of one is worth keeping."""
        if self._draft is None:
            self._draft = self.replica.tensors()
        return self._draft

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raises PayloadError when these numbers do not go with a state of this stage."""
        if facts.get("stage") != self.stage:
            raise PayloadError("the state of another stage")
        Past.unpack(facts.get("past"))

    @property
    def bytes_sent(self) -> int:
        """Letters and meetings; what joiners got stands in events of its own."""
        return self.served.service.post.bytes_sent + self.served.stepping.bytes_sent

    def weights_hash(self) -> str:
        return self.replica.weights_hash()

    def tensors(self) -> dict[str, Tensor]:
        """The state with every step in it, a delayed one too. In the compute thread."""
        self.core.catch_up()
        return self.replica.tensors()

    def load(self) -> Load:
        return Load(self._rate, self._demand)

    def donors(self) -> list[str]:
        """Mates that serve, those first that are known to be ahead, then the furthest.

        Their own tallies say that they are ahead, long before the phone book does.
        """
        members = self._link.membership
        steps: dict[str, int] = {}
        for peer in self.served.view().mates:
            status = members.status(peer)
            step = status.step if status is not None else 0
            if peer in self._donors or (status is not None and step >= self.version):
                steps[peer] = step
        return sorted(steps, key=lambda peer: (peer not in self._donors, -steps[peer], peer))

    async def adopt(self, portrait: Portrait | None, newest: int | None) -> None:
        """Go on from a state; None: from the run's seed. ``newest``: the step of the other stages.

        Raises:
            PayloadError: the state does not fit; nothing is changed.
        """
        await self.place(portrait, newest)
        await self.go_on()

    async def place(self, portrait: Portrait | None, newest: int | None) -> None:
        """The first half: then mates' steps can be followed."""
        past = Past() if portrait is None else Past.unpack(portrait.facts["past"])
        if newest is not None and past.step < newest:
            past = past.at(newest)  # nobody else has this stage: the others must not wait for it
        load: Callable[[], None] | None = None
        if portrait is not None:
            met = bool(portrait.facts["met"])
            load = partial(self.core.load, portrait.tensors, past.step, met=met)
        await self.served.place(past, load)
        self.placed = True

    async def go_on(self) -> None:
        """The second half: this peer is one of its stage."""
        self.missed, self._donors, self._draft = False, (), None
        await self.served.go_on()

    def keep_steps(self, seconds: float) -> None:
        """Somebody copies the state: for so long remember how it goes on."""
        self.served.log.keep(time.monotonic() + seconds)

    async def stay(self) -> None:
        """Nobody is left who was ahead."""
        self.missed, self._donors, self._draft = False, (), None
        await self.served.stay()

    def kept(self, portrait: Portrait) -> Portrait:
        """What a checkpoint holds: the state, and the rounds of others that are in it."""
        past = dict(portrait.facts["past"])
        past["commits"] = [(step, ids.hex()) for step, ids in past["commits"]]
        in_weights = self.served.stepping.in_weights()
        return replace(portrait, facts={**portrait.facts, "past": past, "in_weights": in_weights})

    # ---- what the served stage asks for (Watch) -------------------------------------------------

    def lr(self, past: Past) -> float:
        run = self._run
        return rate(self._progress(past), run.inner.config("inner").lr, run.schedule)

    def stepped(self, commit: Commit, own: int, lr: float, seconds: float) -> None:
        self.steps += 1
        self._emit(
            StageStepped(
                stage=self.stage,
                step=commit.past.step,
                members=sum(work > 0 for work in commit.works.values()),
                samples=len(commit.ids),
                own=own,
                tokens=commit.tokens,
                lr=lr,
                seconds=seconds,
                lineage=commit.past.lineage,
                progress=self._progress(commit.past),
            )
        )

    def lost(self, samples: int) -> None:
        self._emit(SamplesLost(self.stage, samples))

    def behind(self, donors: tuple[str, ...]) -> None:
        self._donors, self.missed = donors, True

    # ---- what stepping asks for (Sight) ---------------------------------------------------------

    def view(self) -> View:
        members, me = self._link.membership, self._link.node.me
        steps = {s: n for s, n in self.served.book.steps.items() if s != self.stage}
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

    async def _report(self) -> None:
        """What was done since the last time, for the log and for whoever decides on places."""
        book, since, served, asked = self.served.book, time.monotonic(), 0, 0
        service, stepping, letters, meetings = self.served.service, self.served.stepping, 0, 0
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
                    refused=sum(service.refusals.values()),
                    failed=stepping.failed,
                    letter_bytes=service.post.bytes_sent - letters,
                    meeting_bytes=stepping.bytes_sent - meetings,
                )
            )
            letters, meetings = service.post.bytes_sent, stepping.bytes_sent
