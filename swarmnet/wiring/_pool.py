"""What all wirings keep of the peers of a stage; a rule only says whom of those it may ask."""

from __future__ import annotations

import random
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarmnet.wiring._estimate import WEIGHT, Estimate
from swarmnet.wiring._flights import FORGET_S, Flights
from swarmnet.wiring._standing import Standing

UNKNOWN_S = 1.0
"""Seconds per sequence while nobody of the stage has answered yet."""
FLOOR_S = 2.0
"""Below that a busy machine's scheduler decides who is late."""
STRANGER_S = 30.0
CEILING_S = 120.0
SLACK = 2.0
"""A stranger may take that much longer than the most patiently awaited of the others."""
RETURN_WEIGHT = 0.5
"""Of a sample after a ban: how a peer was before its trouble, and during it, is old news."""
ASK_AGAIN_S = 10.0
MAX_ABSENT = 64
"""How many banned peers that left the stage are remembered, should they come back."""


@dataclass(slots=True, eq=False)
class Known:
    """One peer of the stage as one trainer sees it."""

    peer: str
    asked_at: float
    wall: Estimate = field(default_factory=Estimate)
    """From the input on its way to the result, per sequence: queues and network included."""
    service: Estimate = field(default_factory=Estimate)
    """The same per sequence that this trainer had there: its own queue taken off."""
    standing: Standing = field(default_factory=Standing)
    flights: Flights = field(default_factory=Flights)
    load: float = 0.0
    tie: float = 0.0

    @property
    def probed(self) -> bool:
        """It came back from a ban, and one pick is there to see how it is."""
        return self.standing.half_open and len(self.flights) > 0

    @property
    def room(self) -> bool:
        """Whether another pick would not flood a peer of whom too little is known."""
        return self.standing.proven or len(self.flights) <= self.standing.good


def _wall(known: Known) -> Estimate:
    return known.wall


class Pool(ABC):
    """A wiring whose rule is ``_choose``. Built as ``Class(config, rng)``."""

    def __init__(self, config: Any, rng: random.Random) -> None:
        self.config = config
        self.rng = rng
        self._known: dict[str, Known] = {}
        self._absent: dict[str, Known] = {}

    @abstractmethod
    def _choose(self, candidates: Sequence[Known], size: float, now: float) -> Known:
        """One of ``candidates``, of which there is at least one, in the order of their ids."""

    def _joined(self, newcomer: Known) -> None:
        """``newcomer`` is about to be one of the stage."""
        return

    def _charge(self, known: Known, size: float) -> float:
        """Charge ``known.load`` for a pick; returns what comes off again if it is not used."""
        return 0.0

    # ---- the protocol -----------------------------------------------------------------------

    def serve(self, peers: Iterable[str], now: float) -> None:
        serving = set(peers)
        for peer in [peer for peer in self._known if peer not in serving]:
            gone = self._known.pop(peer)
            if gone.standing.strikes:
                self._absent[peer] = gone
        for peer in list(self._absent)[:-MAX_ABSENT]:
            del self._absent[peer]
        for peer in sorted(serving - self._known.keys()):
            newcomer = self._absent.pop(peer, None) or Known(peer, asked_at=now)
            self._joined(newcomer)
            self._known[peer] = newcomer
        self._known = dict(sorted(self._known.items()))

    def pick(self, size: float, now: float, avoid: Collection[str] = ()) -> str | None:
        for known in self._known.values():
            known.flights.sweep(now)
        free = self._free(now)
        free = [known for known in free if known.peer not in avoid] or free
        free = [known for known in free if known.room] or free
        if not free:
            return None
        chosen = self._choose(free, size, now)
        cost = self._charge(chosen, size)
        chosen.flights.add(size, cost, now + self.patience_s(chosen.peer, size) + FORGET_S)
        chosen.asked_at = now
        return chosen.peer

    def finished(self, peer: str, size: float, seconds: float, now: float) -> None:
        if known := self._known.get(peer):
            weight = RETURN_WEIGHT if known.standing.strikes else WEIGHT
            _sample(known, size, seconds, weight)
            known.standing.worked()

    def late(self, peer: str, size: float, waited_s: float, now: float) -> None:
        if known := self._known.get(peer):
            # A deadline that was short for another reason must not make the peer look fast.
            _sample(known, size, max(waited_s, size * (known.wall.value or 0.0)), WEIGHT)
            self._fault(known, now - waited_s, now)

    def failed(self, peer: str, now: float) -> None:
        if known := self._known.get(peer):
            known.flights.close()
            self._fault(known, now, now)

    def refused(self, peer: str, retry_s: float, now: float) -> None:
        if known := self._known.get(peer):
            if flight := known.flights.close():
                known.load -= flight.cost
            known.standing.full(now + retry_s)

    def patience_s(self, peer: str, size: float) -> float:
        known = self._known.get(peer)
        late = known.wall.late if known else None
        if late is None:
            others = [k.wall.late for k in self._known.values() if k.wall.late is not None]
            if not others:
                return STRANGER_S
            late = SLACK * max(others)
        return min(max(FLOOR_S, late * size), CEILING_S)

    def next_at(self, now: float) -> float | None:
        return min((at for _, at in self._free_from(now) if at > now), default=None)

    def _free(self, now: float) -> list[Known]:
        """Who may be asked at all."""
        return [known for known, at in self._free_from(now) if now >= at]

    def _free_from(self, now: float) -> list[tuple[Known, float]]:
        """Everybody, and from when on it may be asked, as things stand."""
        stuck = all(known.standing.banned(now) for known in self._known.values())
        times = []
        for known in self._known.values():
            at = known.standing.resort_at if stuck else known.standing.free_at
            times.append((known, max(at, known.flights.lapse_at) if known.probed else at))
        return times

    # ---- for the rules ----------------------------------------------------------------------

    def _expected(self, known: Known, of: Callable[[Known], Estimate] = _wall) -> float:
        """Seconds per sequence; of a peer without a sample the stage's median."""
        if (value := of(known).value) is not None:
            return value
        others = [v for other in self._known.values() if (v := of(other).value) is not None]
        return statistics.median(others) if others else UNKNOWN_S

    def _overdue(self, candidates: Sequence[Known], now: float) -> Known | None:
        """Who has not been asked for so long that what is known of it may be wrong by now."""
        longest = min(candidates, key=lambda known: known.asked_at)
        return longest if now - longest.asked_at >= ASK_AGAIN_S else None

    def _fault(self, known: Known, sent: float, now: float) -> None:
        # Trainers that lost the same peer do not all come back to it at once.
        if known.standing.fault(sent, now, stretch=self.rng.uniform(0.75, 1.25)):
            known.flights.clear()  # lost as well, as far as the way back is concerned


def _sample(known: Known, size: float, seconds: float, weight: float) -> None:
    """A pick of ``size`` is over, and took its peer ``seconds``, or so long at least."""
    flight = known.flights.close(size)
    known.wall.add(seconds / size, weight)
    known.service.add(seconds / (flight.queued if flight else size), weight)
