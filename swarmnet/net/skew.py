"""How far this computer's clock is from those of the others: a pure function of records.

A record expires half an hour after it was written, by its writer's clock. One that changed since
the last look was written since then, so it tells what its writer's clock says now. Nothing depends
on the result; but a clock that is wrong spoils logs, certificates and, beyond 25 minutes, records.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

BOUND_S = 120.0
"""Records are read every minute at the latest, so a fresh one may be that old."""
MAX_PEERS = 4096


@dataclass(frozen=True)
class Offset:
    """Our clock is ``ahead_s`` ahead of ``peers`` others, the most of those that were heard."""

    ahead_s: float
    peers: int


class Skew:
    """Fed with every look at the peers' records."""

    def __init__(self) -> None:
        self._written: dict[str, float] = {}
        self._ahead: dict[str, float] = {}

    def look(self, written: Mapping[str, float], wall: float) -> None:
        """When each other peer wrote its record, by its own clock, and what our clock says."""
        for peer, then in written.items():
            if then > self._written.get(peer, then):
                self._ahead[peer] = wall - then
        self._written = dict(list(written.items())[:MAX_PEERS])
        self._ahead = {peer: ahead for peer, ahead in self._ahead.items() if peer in self._written}

    def offset(self) -> Offset | None:
        """Ours, when more than half of the others' clocks are off in one direction.

        Who was not heard yet counts as being on our side.
        """
        for side in (1, -1):
            off = [ahead for ahead in self._ahead.values() if side * ahead > BOUND_S]
            if 2 * len(off) > len(self._written):
                return Offset(statistics.median(off), len(off))
        return None
