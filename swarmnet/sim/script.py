"""Faults by the clock: what happens to which peer of a simulated swarm, and when.

Peers are named by their number in the swarm, joiners count on from the last. Times are virtual
seconds from the moment at which the swarm plays the script. A ``Trace`` is the same as data: one
``(time, peer, what)`` a line, from a log of real machines or from ``churn``.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from swarmnet.sim.swarm import Swarm

What = Literal["join", "crash", "restart"]
Trace = Iterable[tuple[float, int, What]]
"""The peer of a join is the number that it gets; a trace must name them in order."""
Group = int | Sequence[int]


@dataclass(frozen=True)
class Act:
    """One thing that happens to a swarm."""

    at: float
    do: Callable[[Swarm], Awaitable[object] | None]


class Script:
    """Faults in any order; ``Swarm.play`` brings them about. Every method returns the script."""

    def __init__(self) -> None:
        self._acts: list[Act] = []

    @property
    def acts(self) -> list[Act]:
        """In the order of their times; those of the same time as they were written."""
        return sorted(self._acts, key=lambda act: act.at)

    def join(self, at: float) -> Self:
        """A new peer with the next number."""
        return self._add(at, lambda swarm: swarm.join())

    def crash(self, peer: int, at: float) -> Self:
        """The process is gone without a word."""
        return self._add(at, lambda swarm: swarm.crash(peer))

    def leave(self, peer: int, at: float) -> Self:
        """The process is told to go: it hands its work to a neighbour first."""
        return self._add(at, lambda swarm: swarm.leave(peer))

    def restart(self, peer: int, at: float) -> Self:
        """The same identity as a new process, with weights of its own."""
        return self._add(at, lambda swarm: swarm.restart(peer))

    def freeze(self, peer: int, at: float, for_s: float) -> Self:
        """It neither steps nor reads nor writes, and its streams stay open."""
        return self._add(at, lambda swarm: swarm.freeze(peer, for_s))

    def slow(self, peer: int, by: float, at: float = 0.0) -> Self:
        """From ``at`` on its steps take ``by`` times as long."""
        return self._add(at, lambda swarm: swarm.slow(peer, by))

    def partition(self, a: Group, b: Group, during: tuple[float, float]) -> Self:
        """Nobody in ``a`` reaches anybody in ``b``, from the first time to the second."""
        walls = [(one, other) for one in _numbers(a) for other in _numbers(b)]
        self._add(during[0], lambda swarm: swarm.partition(walls))
        return self._add(during[1], lambda swarm: swarm.heal(walls))

    def cut(self, opener: int, sender: int, after_bytes: int, at: float = 0.0) -> Self:
        """The next meeting that ``opener`` opens, ``sender`` being either side of it, breaks when
        ``sender`` has sent so many bytes."""
        return self._add(at, lambda swarm: swarm.cut(opener, sender, after_bytes))

    def follow(self, trace: Trace) -> Self:
        """Joins, crashes and restarts from a list."""
        for at, peer, what in trace:
            if what == "join":
                self.join(at)
            elif what == "crash":
                self.crash(peer, at)
            else:
                self.restart(peer, at)
        return self

    def _add(self, at: float, do: Callable[[Swarm], Awaitable[object] | None]) -> Self:
        self._acts.append(Act(at, do))
        return self


@dataclass(frozen=True)
class Churn:
    """How a swarm of a steady size turns over. ``per_s``: share of its peers that crash a second.

    ``away_s`` later the same peer restarts, with the probability ``come_back``, or else a new peer
    joins in its stead.
    """

    per_s: float
    away_s: float
    come_back: float = 0.5


def churn(n: int, law: Churn, lasts_s: float, seed: int) -> list[tuple[float, int, What]]:
    """A trace of ``lasts_s`` seconds for a swarm that begins with ``n`` peers, by time."""
    rng = random.Random(seed)
    up, trace = list(range(n)), list[tuple[float, int, What]]()
    away: deque[tuple[float, int]] = deque()
    born, at = n, 0.0
    while at < lasts_s:
        at = min(at + rng.expovariate(law.per_s * n), lasts_s)
        while away and away[0][0] <= at:
            since, peer = away.popleft()
            back = rng.random() < law.come_back
            trace.append((since, peer, "restart") if back else (since, born, "join"))
            up.append(peer if back else born)
            born += not back
        if up and at < lasts_s:
            gone = up.pop(rng.randrange(len(up)))
            trace.append((at, gone, "crash"))
            away.append((at + law.away_s, gone))
    return trace


def _numbers(group: Group) -> Sequence[int]:
    return [group] if isinstance(group, int) else group
