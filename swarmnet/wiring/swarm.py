"""SWARM's wiring (arXiv 2301.11913): shares in proportion to measured speed, interleaved."""

from __future__ import annotations

from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.wiring._pool import Known, Pool


class Swarm(Pool):
    """Interleaved weighted round-robin: whoever has been charged least gets the next microbatch.

    A pick is charged when it is made, with the estimated seconds of its sequences, and that is
    not corrected later. With fixed times s_i per sequence the loads never lie further apart than
    the largest s_i w, so peer i's share is 1 / s_i. Loads are compared by (load, random number).
    The reference keeps them in a heap; who may be asked changes with the clock, so this looks at
    all peers of the stage.

    Nobody saves up a share while it may not be asked: such a peer's load keeps up with the least
    of those that may be, and while it is banned with the largest of them.
    """

    class Config(Section):
        pass

    def _joined(self, newcomer: Known) -> None:
        loads = [known.load for known in self._known.values()]
        newcomer.load = max(newcomer.load, min(loads, default=0.0))
        newcomer.tie = self.rng.random()

    def _choose(self, candidates: Sequence[Known], size: float, now: float) -> Known:
        self._keep_up(now)
        return min(candidates, key=lambda known: (known.load, known.tie))

    def _charge(self, known: Known, size: float) -> float:
        cost = size * self._expected(known)
        known.load += cost
        known.tie = self.rng.random()
        return cost

    def _keep_up(self, now: float) -> None:
        active = {known for known in self._free(now) if known.room}
        if not active:
            return
        loads = [known.load for known in active]
        least, largest = min(loads), max(loads)
        for known in self._known.values():
            if known.standing.banned(now):
                known.load = max(known.load, largest)
            elif known not in active:
                known.load = max(known.load, least)
