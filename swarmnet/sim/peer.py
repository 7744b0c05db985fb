"""A whole gossip peer in virtual time: the real exchange around a plain vector that drifts.

"Training" adds a seeded random increment at every step, so the sum of all increments ever added
says where the swarm's mean must be: the mean law can be checked after any storm.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarmnet.errors import PayloadError
from swarmnet.events import ExchangeDone
from swarmnet.exchange.consensus import Plan, reach_consensus
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.links import Links
from swarmnet.exchange.lookout import Lookout
from swarmnet.exchange.membership import Membership, Status
from swarmnet.exchange.subject import Correction
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.window import Window
from swarmnet.sim.clock import now
from swarmnet.sim.network import SimNetwork

Floats = NDArray[np.float64]
PART_VALUES = 1 << 16


class VectorSubject:
    """Pair averaging of a float64 vector without loss (``outer/average`` on plain numbers)."""

    def __init__(self, vector: Floats) -> None:
        self.live = vector.copy()
        self.nbytes = vector.nbytes
        self.layout = f"{vector.size:016x}"
        self.parts = -(-vector.size // PART_VALUES)
        self.ready_made = True
        self.steps_alone = False

    def capture(self) -> Floats:
        return self.live.copy()

    def part_nbytes(self, part: int) -> int:
        return int(self.live[_span(part)].nbytes)

    def encode(self, snapshot: Floats, part: int) -> memoryview:
        return memoryview(snapshot[_span(part)].tobytes())

    def blend(self, snapshot: Floats, me: str, works: Mapping[str, int]) -> VectorBlend:
        return VectorBlend(snapshot, me)

    def apply_met(self, snapshot: Floats, correction: Floats) -> None:
        self.live += correction

    def apply_solo(self, snapshot: Floats) -> None:
        """Averaging has no outer step of its own."""

    def apply_late(self, correction: Floats) -> None:
        self.live += correction

    def enter_consensus(self) -> None:
        """Training meets by pure averages already."""


class VectorBlend:
    """The plain mean of a group's vectors."""

    def __init__(self, own: Floats, me: str) -> None:
        self._own = own
        self._me = me
        self._correction = np.zeros_like(own)
        self._squares = 0.0
        self._compared = 1

    def take(self, part: int, payloads: Mapping[str, memoryview]) -> None:
        span = _span(part)
        self._correction[span] = self._mean(part, payloads) - self._own[span]

    def fuse(self, part: int, payloads: Mapping[str, memoryview]) -> memoryview:
        return memoryview(self._mean(part, payloads).tobytes())

    def adopt(self, part: int, mean: memoryview) -> None:
        span = _span(part)
        self._correction[span] = _floats(mean) - self._own[span]

    def finish(self) -> Correction:
        return Correction(self._correction, (self._squares / self._compared) ** 0.5)

    def _mean(self, part: int, payloads: Mapping[str, memoryview]) -> Floats:
        own = self._own[_span(part)]
        vectors = {peer: _floats(payload) for peer, payload in payloads.items()}
        self._squares += float(sum(np.sum((vector - own) ** 2) for vector in vectors.values()))
        self._compared = self._own.size * len(vectors)
        vectors[self._me] = own
        mean: Floats = np.mean([vectors[peer] for peer in sorted(vectors)], axis=0)
        return mean


def _span(part: int) -> slice:
    return slice(part * PART_VALUES, (part + 1) * PART_VALUES)


def _floats(payload: memoryview) -> Floats:
    vector = np.frombuffer(payload)
    if not np.isfinite(vector).all():
        raise PayloadError("payload is not finite")
    return vector


@dataclass(frozen=True)
class SimOptions:
    """What all simulated peers share."""

    matching: Any
    cadence: Any
    renew_s: float = 2.0
    step_s: float = 1.0
    drift: float = 1.0


@dataclass
class PhoneBook:
    """Stands for the DHT: the newest status per peer, readable by everybody."""

    statuses: dict[str, Status] = field(default_factory=dict)


class SimPeer:
    """One peer; ``run`` lives until the peer is crashed or the simulation ends."""

    def __init__(
        self, me: str, network: SimNetwork, book: PhoneBook, options: SimOptions, seed: int
    ) -> None:
        self.me = me
        self.steps = 0
        self.slowdown = 1.0
        self.added = np.zeros(8)
        self.events: list[ExchangeDone] = []
        self._network = network
        self._book = book
        self._options = options
        self._random = np.random.default_rng(seed)
        self.subject = VectorSubject(self._random.normal(size=8))
        self.started = self.subject.live.copy()
        self._counter = 0
        self.state = "training"
        self._incarnation = int(now()) + 1
        self._born = now()
        self.membership = Membership(me, options.renew_s)
        self.lookout = Lookout(self.membership)
        self.window = Window(me, options.cadence, options.matching, random.Random(seed))
        self.desk = Desk(self.subject, self._wants)
        self.around = Surroundings(
            transport=network.transport(me),
            membership=self.membership,
            links=Links(),
            mine=self.status,
            offload=_inline,
            emit=self.events.append,
            clock=now,
        )
        self.gossip = Gossip(self.around, self.window, self.desk, self.subject, self._incarnation)

    def status(self) -> Status:
        """Our own word now, newer than every word before."""
        self._counter = max(self._counter + 1, int(1000 * (now() - self._born)))
        return Status(self._incarnation, self._counter, self.state, step=self.steps)

    async def start(self) -> None:
        """Serve, publish, meet and step, all as tasks that die with this peer."""
        await self.gossip.open()
        self.gossip.stance = "train"
        for work in (self._renew(), self.gossip.run(), self._train()):
            self._network.own(self.me, asyncio.create_task(work))

    async def finish(self, plan: Plan) -> int:
        """Stop stepping and take part in the consensus phase. Returns the meetings held."""
        self.state = "consensus"
        self.gossip.enter_consensus()
        self._publish()
        return await reach_consensus(self.gossip, self.around, plan)

    def settle(self) -> None:
        """Apply what is due without another step."""
        self.events += self.desk.boundary(self.steps, 0.0)

    def _wants(self, step: int, progress: float) -> bool:
        return self.gossip.stance == "consensus" or self.window.welcome_at(step, progress)

    def _publish(self) -> None:
        self._book.statuses[self.me] = self.status()

    async def _renew(self) -> None:
        while True:
            self._publish()
            if self.state != "training" or self.lookout.due(now()):
                self.lookout.read(now())
                for peer, status in self._book.statuses.items():
                    self.membership.observe(peer, status, now())
            await asyncio.sleep(self._options.renew_s)

    async def _train(self) -> None:
        while True:
            self.settle()
            if self.state == "training":
                step_s = self._options.step_s * self.slowdown
                await asyncio.sleep(step_s * (0.9 + 0.2 * self._random.random()))
                await self._network.thaw(self.me)
                if self.state != "training":
                    continue
                increment = self._random.normal(size=8) * self._options.drift
                self.subject.live += increment
                self.added += increment
                self.steps += 1
            else:
                await asyncio.sleep(0.01)


async def _inline(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def disagreement(vectors: list[Floats]) -> float:
    """Root mean square distance of the replicas from their mean, per coordinate."""
    stack = np.stack(vectors)
    return float(np.sqrt(np.mean((stack - stack.mean(axis=0)) ** 2)))
