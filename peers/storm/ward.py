"""Whom a storm hits and when it is over: decides, touches nothing.

A fault hits somebody who is well: up, and under no other fault than a wall. One that would leave
fewer than ``floor`` peers that are well and train, and a second partition while one stands, does
not happen; it is counted. Who has only just been started does not train yet: it has no state that
it could give to others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from peers.storm.plan import LIMITS, Fault, Kill, StormConfig

STOPS = ("kill", "freeze", "memory_limit")
"""Kinds that may leave one peer fewer to train."""


@dataclass(frozen=True)
class Act:
    """Something to be done now: ``fault`` begins to hit ``subjects``, or is over for them.

    ``enters`` is who must be started: the returned, the replacement or the newcomer.
    """

    fault: Fault
    subjects: tuple[str, ...]
    over: bool = False
    enters: str = ""


class Ward:
    """The peers of one swarm by name. Times are seconds after the storm's start."""

    def __init__(
        self, storm: StormConfig, faults: Iterator[Fault], prefix: str = "worker-"
    ) -> None:
        self.skipped = 0
        self._storm = storm
        self._faults = faults
        self._next = next(faults)
        self._prefix = prefix
        self._well: list[str] = []
        self._training: set[str] = set()
        self._killed: frozenset[str] = frozenset()
        self._open: list[tuple[float, Act]] = []
        self._born = 0

    @property
    def away(self) -> frozenset[str]:
        """Killed, and to come back in its own folder."""
        returns = self._storm.kill is not None and self._storm.kill.then == "returns"
        return self._killed if returns else frozenset()

    @property
    def dead(self) -> frozenset[str]:
        """Killed for good."""
        return self._killed - self.away

    def reserve(self, name: str) -> None:
        """The name is taken: those of newcomers count on from the highest."""
        number = name.removeprefix(self._prefix)
        self._born = max(self._born, int(number) + 1 if number.isdigit() else 0)

    def enter(self, name: str) -> None:
        """Its process is up. What it said before it was killed comes too late."""
        if name not in self._killed and name not in self._well:
            self._well.append(name)

    def trains(self, name: str) -> None:
        """It has taken a step, so it has a state."""
        if name in self._well:
            self._training.add(name)

    def leave(self, name: str) -> None:
        """It ended by itself: nothing more is done to it, and nobody comes back for it."""
        self._drop(name)
        kept = []
        for until, act in self._open:
            subjects = tuple(subject for subject in act.subjects if subject != name)
            if subjects:
                kept.append((until, Act(act.fault, subjects, act.over, act.enters)))
        self._open = kept

    def died(self, name: str) -> Act | None:
        """A limit was more than it could bear: that fault is over now, with a new process."""
        for entry in self._open:
            act = entry[1]
            if act.subjects == (name,) and act.fault.kind in LIMITS:
                self._open.remove(entry)
                self._drop(name)
                return Act(act.fault, act.subjects, over=True, enters=name)
        return None

    def due(self, now: float) -> list[Act]:
        """What is to be done by ``now``: first what is over, then what begins."""
        acts = [self._end(entry) for entry in sorted(self._open, key=_until) if entry[0] <= now]
        while self._next.at <= now:
            fault, self._next = self._next, next(self._faults)
            act = self._begin(fault)
            if act is None:
                self.skipped += 1
            else:
                acts.append(act)
                self._note(act)
        return acts

    def heal(self) -> list[Act]:
        """The storm is over: everything ends now."""
        return [self._end(entry) for entry in sorted(self._open, key=_until)]

    # ---- within -----------------------------------------------------------------------------

    def _begin(self, fault: Fault) -> Act | None:
        if fault.kind == "join":
            return Act(fault, (name := self._new(),), enters=name)
        able = [name for name in self._well if name not in self._busy]
        if fault.kind == "partition":
            return self._split(fault)
        if not able:
            return None
        victim = able[int(fault.draw * len(able))]
        left = self._training.intersection(able) - {victim}
        if fault.kind in STOPS and len(left) < self._storm.floor:
            return None
        return Act(fault, (victim,))

    @property
    def _busy(self) -> frozenset[str]:
        """Under a fault of their own; a wall is everybody's."""
        own = (act for _, act in self._open if act.fault.kind != "partition")
        return frozenset(name for act in own for name in act.subjects)

    def _split(self, fault: Fault) -> Act | None:
        """The far side of a wall, drawn among all that are up; somebody is on either side."""
        standing = any(act.fault.kind == "partition" for _, act in self._open)
        assert self._storm.partition is not None
        up = sorted(self._well)
        count = round(self._storm.partition.share * len(up))
        if standing or not 0 < count < len(up):
            return None
        return Act(fault, tuple(sorted(random.Random(fault.draw).sample(up, count))))

    def _note(self, act: Act) -> None:
        if act.fault.kind == "kill":
            self._drop(act.subjects[0])
            self._killed |= set(act.subjects)
        if act.fault.seconds:
            self._open.append((act.fault.at + act.fault.seconds, act))

    def _end(self, entry: tuple[float, Act]) -> Act:
        self._open.remove(entry)
        act = entry[1]
        enters = self._successor(act.subjects[0]) if act.fault.kind == "kill" else ""
        self._killed -= {enters}
        return Act(act.fault, act.subjects, over=True, enters=enters)

    def _successor(self, killed: str) -> str:
        kill: Kill | None = self._storm.kill
        return killed if kill is None or kill.then == "returns" else self._new()

    def _new(self) -> str:
        self._born += 1
        return f"{self._prefix}{self._born - 1}"

    def _drop(self, name: str) -> None:
        self._training.discard(name)
        if name in self._well:
            self._well.remove(name)


def _until(entry: tuple[float, Act]) -> float:
    return entry[0]
