"""A whole gossip peer in virtual time: the real exchange around a plain vector that drifts.

"Training" adds a seeded random increment at every step, so the sum of all increments ever added
says where the swarm's mean must be: the mean law can be checked after any storm.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from swarmnet.events import ExchangeDone
from swarmnet.exchange.consensus import Plan, reach_consensus
from swarmnet.exchange.desk import Desk, Snapshot
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.farewell import Said
from swarmnet.exchange.links import Links
from swarmnet.exchange.lookout import Lookout
from swarmnet.exchange.membership import Membership, Status
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.window import Window
from swarmnet.sim.book import PhoneBook
from swarmnet.sim.clock import now
from swarmnet.sim.network import SimNetwork
from swarmnet.sim.vector import VectorSubject

SIZE = 8
LEAVE_S = 5.0
POLL_S = 0.01
EPOCH = 1_700_000_000
"""Incarnations are seconds since 1970, as those of real peers: they take as many bytes."""


@dataclass(frozen=True)
class SimOptions:
    """What all simulated peers share. ``matching`` and ``cadence`` are built choices."""

    matching: Any
    cadence: Any
    renew_s: float = 2.0
    step_s: float = 1.0
    scatter: float = 0.1
    """A step takes ``step_s`` times anything from 1 - scatter to 1 + scatter."""
    drift: float = 1.0
    """Standard deviation of what a step adds to each coordinate."""
    nbytes: int = 0
    """Size of a payload, if larger than that of the vector."""
    records: int | None = None
    """Phone book records that a peer reads at a renewal, by chance; None reads all."""


class SimPeer:
    """One peer; it lives until it is crashed or the simulation ends.

    ``clock_offset_s`` is what its own monotonic clock showed when the simulation began.
    """

    def __init__(
        self,
        me: str,
        network: SimNetwork,
        book: PhoneBook,
        options: SimOptions,
        seed: int,
        clock_offset_s: float = 0.0,
    ) -> None:
        self.me = me
        self.steps = 0
        self.waited_s = 0.0
        """Time between the end of a step and the start of the next, freezes included."""
        self.slowdown = 1.0
        """How many times longer a step takes than ``options`` say."""
        self.added = np.zeros(SIZE)
        self.events: list[ExchangeDone] = []
        self._network = network
        self._book = book
        self._options = options
        self._random = np.random.default_rng(seed)
        self._chance = random.Random(seed)
        self._offset_s = clock_offset_s
        self.subject = VectorSubject(self._random.normal(size=SIZE), options.nbytes)
        self.started = self.subject.live.copy()
        self._counter = 0
        self.state = "training"
        self._incarnation = EPOCH + int(self.clock())
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
            clock=self.clock,
        )
        self.gossip = Gossip(self.around, self.window, self.desk, self.subject, self._incarnation)

    def clock(self) -> float:
        """The peer's own monotonic clock: nobody else's shows the same."""
        return now() + self._offset_s

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

    async def leave(self, within_s: float = LEAVE_S) -> Said:
        """Meet nobody any more, and hand what nobody has yet to a neighbour. Steps are over."""
        self.state = "left"
        self.gossip.paused = True
        for _ in range(round(within_s / 2 / POLL_S)):
            if not self.gossip.free:
                await asyncio.sleep(POLL_S)
        await self.gossip.retire()
        self.settle()
        until = self.clock() + within_s / 2
        vector = self.subject.legacy.capture()
        if vector is None:
            return Said("nobody", reason="there is nothing to hand over")
        said = await self.gossip.farewells.say(Snapshot(self.steps, vector), until)
        if said.gone is not None:
            self.subject.legacy.part_with(said.gone)
        self._publish()
        return said

    def settle(self) -> None:
        """Apply what is due without another step."""
        self.events += self.desk.boundary(self.steps, 0.0)

    def _wants(self, step: int, progress: float) -> bool:
        return self.gossip.stance == "consensus" or self.window.welcome_at(step, progress)

    def _publish(self) -> None:
        self._book.write(self.me, self.status())

    async def _renew(self) -> None:
        while True:
            await self._network.thaw(self.me)
            self._publish()
            if self._looks():
                self.lookout.read(self.clock())
                for peer, status in self._book.read(self._options.records, self._chance):
                    self.membership.observe(peer, status, self.clock())
            await asyncio.sleep(self._options.renew_s)

    def _looks(self) -> bool:
        """A sample of the book is read at every renewal, the whole of it when it tells news."""
        sampled = self._options.records is not None
        return sampled or self.state != "training" or self.lookout.due(self.clock())

    async def _train(self) -> None:
        ended_at = now()
        while True:
            self.settle()
            if self.state == "training":
                self.waited_s += now() - ended_at
                await asyncio.sleep(self._step_s())
                ended_at = now()
                await self._network.thaw(self.me)
                if self.state != "training":
                    continue
                increment = self._random.normal(size=SIZE) * self._options.drift
                self.subject.live += increment
                self.added += increment
                self.steps += 1
            else:
                await asyncio.sleep(POLL_S)

    def _step_s(self) -> float:
        scatter = self._options.scatter * (2 * self._random.random() - 1)
        return self._options.step_s * self.slowdown * (1 + scatter)


async def _inline(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
