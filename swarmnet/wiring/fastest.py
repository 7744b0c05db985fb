"""Always the peer that should be done first: what this trainer has there, at the peer's pace."""

from __future__ import annotations

from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.wiring._pool import Known, Pool


class Fastest(Pool):
    """Least (open sequences + size) x seconds per sequence, the own queue not counted twice.

    Best for one trainer: a peer that is slower than the queue of a fast one is left idle. Trainers
    do not see each other's queues, so many of them crowd the same peer; those want ``swarm`` or
    ``latency_aware``. Who has not been asked for a while is asked, however slow it was.
    """

    class Config(Section):
        pass

    def _choose(self, candidates: Sequence[Known], size: float, now: float) -> Known:
        def done_in_s(known: Known) -> tuple[float, float]:
            pace = self._expected(known, lambda other: other.service)
            return (known.flights.sequences + size) * pace, known.asked_at

        return self._overdue(candidates, now) or min(candidates, key=done_in_s)
