"""Peers of a stage that step apart: each takes inner steps of its own, and replicas meet.

NoLoCo between replicas whose inside is a randomized pipeline (arXiv 2506.10911, section 3.1). A
peer of a stage is a replica of that part of the model. Once it has counted its own share of
samples it steps with its own inner optimizer; as the run's cadence says it meets others of the
same stage through the gossip of ``exchange``; when the run ends they become one.

The share is a fixed number of sequences, not a span of time: whatever the routing brings, every
step is the mean of as many tokens, so one learning rate fits all and the displacement of a window
is worth its number of steps. Peers that are sent more samples take more steps, and an outer rule
that weighs by steps weighs by samples.

What counts where. A sample counts at one peer of each stage, in that peer's step alone. It is
*committed* there once the peer has stepped with it, and reaches the other replicas with the next
meeting. A peer that dies takes with it what it has not exchanged: samples that it held are sent
again and count at another peer, those of its last steps are lost with its weights. A peer that
hung and was replaced may step with a sample that counts at its successor too: no replica has it
twice, and its trainer settles it once.

A gradient is that of the weights that went forward, so it comes back to the same peer. When that
one is lost the next stage answers from its cache, with the gradient at the lost replica's output:
a repaired sample is exact as far as the replicas agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from swarmnet.errors import MessageError
from swarmnet.exchange.consensus import Plan, reach_consensus
from swarmnet.exchange.desk import Desk, Snapshot
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.farewell import Said
from swarmnet.exchange.subject import Subject, Vector
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.pipeline.past import Commit, Past
from swarmnet.pipeline.stepping import Sums
from swarmnet.wire.messages import Tally

POLL_S = 0.02
SETTLE_S = 2.0
"""A meeting that lasts longer when the steps are over is left pending."""


class Stage(Protocol):
    """Gradients and weights of this peer. What is awaited runs in its compute thread."""

    @property
    def tokens(self) -> int:
        """In the sums now."""
        ...

    @property
    def complete(self) -> bool:
        """No sample is on its way into the sums."""
        ...

    async def take(self) -> Sums:
        """The sums as they are; what is on its way counts for the next ones."""
        ...

    async def discard(self, sums: Sums) -> None:
        """They are in a step."""
        ...

    async def step(self, mean: Vector, commit: Commit) -> None:
        """``Steps.boundary``, then an inner step with the mean gradient per token.

        From here on ``commit.past`` is the weights'; they serve as a new version.
        """
        ...

    async def visit(self, look_in: Callable[[], bool]) -> None:
        """Call it between two tasks; when it says that the weights moved, serve them."""
        ...


@dataclass(frozen=True)
class Meetings:
    """One peer's meetings with others of its stage; ``around`` knows of nobody else."""

    gossip: Gossip
    desk: Desk
    subject: Subject
    around: Surroundings
    plan: Plan
    progress: Callable[[], float]
    """Of the run. Any thread."""


class Apart:
    """Implements ``steps.Steps``. ``share``: tokens behind one step of this peer."""

    def __init__(self, meetings: Meetings, stage: Stage, share: int) -> None:
        self.past = Past()
        self.flush = False
        self.failed = self.bytes_sent = 0
        self._meetings = meetings
        self._gossip = meetings.gossip
        self._stage = stage
        self._share = share
        self._restored = False
        self._stepping = asyncio.Lock()
        self._moved = asyncio.Event()

    @property
    def settled(self) -> bool:
        return self._restored and not self._stepping.locked()

    async def open(self) -> None:
        """Nobody is answered before the weights are those of the run."""

    def remember(self, rounds: Iterable[tuple[str, int]]) -> None:
        self._gossip.remember(rounds)

    def in_weights(self) -> list[tuple[str, int]]:
        return list(self._gossip.settling.in_weights)

    def restored(self, past: Past) -> None:
        self.past, self._restored = past, True
        if past.step:  # somebody's state, or an old one: the next thing is a meeting
            self._gossip.window.ripen(past.step, self._meetings.progress())

    async def run(self) -> None:
        await self._gossip.open()
        self._gossip.stance = "train"
        await self._stage.visit(self._look_in)
        meeting = asyncio.create_task(self._gossip.run())
        flushing = asyncio.create_task(self._flush())
        try:
            await asyncio.wait({meeting, flushing}, return_when=asyncio.FIRST_COMPLETED)
            if self._gossip.retired:  # no meetings any more, yet steps to the end
                await flushing
        finally:
            meeting.cancel()
            flushing.cancel()
            for task in (meeting, flushing):
                with suppress(asyncio.CancelledError):
                    await task

    async def between(self) -> None:
        if self._restored and self._stage.tokens >= self._share:
            await self._step()

    def boundary(self) -> None:
        self._look_in()

    def counted(self) -> None:
        self._moved.set()

    def committed(self, sample: int) -> bool:
        return self.past.counted(sample) is not None

    def tally(self) -> Tally | None:
        return None

    def hear(self, peer: str, tally: Tally) -> None:
        raise MessageError("peers of a stage that step apart tell no tallies")

    def leave(self) -> None:
        """What is held becomes part of a last step, and of the swarm only if somebody meets me."""
        self.flush = True
        self._moved.set()

    async def bequeath(self, until: float) -> Said | None:
        meetings, farewells = self._meetings, self._gossip.farewells
        await self._wind_down(min(SETTLE_S, (until - meetings.around.clock()) / 2))
        await self._gossip.retire()
        found: list[Vector | None] = []

        def capture() -> bool:
            applied = self._look_in()
            found.append(meetings.subject.legacy.capture())
            return applied

        await self._stage.visit(capture)
        [vector] = found
        if vector is None:
            return None
        said = await farewells.say(Snapshot(self.past.step, vector), until)
        if said.gone is not None:
            await self._stage.visit(lambda: self._part_with(said.gone))
        return said

    async def finish(self) -> None:
        """Pure averaging among the peers of the stage, within the plan's budget."""
        await self._wind_down()
        await self._stage.visit(self._enter_consensus)
        meetings = self._meetings
        phase = asyncio.create_task(
            reach_consensus(meetings.gossip, meetings.around, meetings.plan)
        )
        try:
            while not phase.done():
                await self._stage.visit(self._look_in)
                await asyncio.sleep(POLL_S)
            phase.result()
        finally:
            phase.cancel()
        await self._stage.visit(self._look_in)
        self._gossip.stance = "leaving"

    # ---- inside -----------------------------------------------------------------------------

    def _look_in(self) -> bool:
        """Compute thread: apply what is due, leave a snapshot. Whether anything was applied."""
        meetings = self._meetings
        applied = meetings.desk.boundary(self.past.step, meetings.progress())
        for event in applied:
            meetings.around.emit(event)
        return bool(applied)

    def _part_with(self, gone: Vector) -> bool:
        self._meetings.subject.legacy.part_with(gone)
        return True

    def _enter_consensus(self) -> bool:
        self._gossip.enter_consensus()
        return False

    async def _flush(self) -> None:
        """The last samples are no full share any more."""
        while True:
            self._moved.clear()
            if self.flush and self._stage.tokens and self._stage.complete:
                await self._step()
            await self._moved.wait()

    async def _step(self) -> None:
        async with self._stepping:
            sums = await self._stage.take()
            if sums.tokens:
                me = self._meetings.around.transport.me
                ids = tuple(sorted(sums.samples))
                commit = Commit.of(self.past, {me: sums.tokens}, {me: ids})
                mean = await self._meetings.around.offload(_mean, sums)
                await self._stage.step(mean, commit)
                self.past = commit.past
            await self._stage.discard(sums)

    async def _wind_down(self, within_s: float = SETTLE_S) -> None:
        """No new meetings; the one under way ends, and what was decided is applied."""
        self._gossip.paused = True
        clock = self._meetings.around.clock
        deadline = clock() + within_s
        while not self._gossip.free and clock() < deadline:
            await self._stage.visit(self._look_in)
            await asyncio.sleep(POLL_S)
        await self._stage.visit(self._look_in)


def _mean(sums: Sums) -> Vector:
    return sums.vector / sums.tokens
