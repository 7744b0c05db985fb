"""The better of two drawn peers by latency lately and open work: calm where trainers are many."""

from __future__ import annotations

from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.wiring._pool import Known, Pool


class LatencyAware(Pool):
    """Power of two choices over the peak of the average and the latest latency.

    The rule of Finagle and Linkerd ("peak EWMA"): latency x open sequences. Latency holds network
    and everybody's queue; its latest sample counts at once when it is worse than the average. Two
    at random, not all: trainers that read the same news do not all run to the same peer.
    """

    class Config(Section):
        pass

    def _choose(self, candidates: Sequence[Known], size: float, now: float) -> Known:
        overdue = self._overdue(candidates, now)
        if overdue or len(candidates) == 1:
            return overdue or candidates[0]
        return min(
            self.rng.sample(candidates, 2),
            key=lambda known: (known.flights.sequences + size) * self._latency(known),
        )

    def _latency(self, known: Known) -> float:
        return max(self._expected(known), known.wall.latest)
