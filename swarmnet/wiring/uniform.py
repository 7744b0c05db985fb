"""NoLoCo's random routing (arXiv 2506.10911, section 3.1): chance alone, everybody alike."""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.wiring._pool import Known, Pool


class Uniform(Pool):
    """One random order of the stage's peers after the other, so that shares are equal.

    The paper draws one permutation for all replicas and gets a perfect balance; a trainer that
    asks nobody gets it for its own microbatches by going through permutations of its own.
    """

    class Config(Section):
        pass

    def __init__(self, config: Config, rng: random.Random) -> None:
        super().__init__(config, rng)
        self._order: list[str] = []

    def _choose(self, candidates: Sequence[Known], size: float, now: float) -> Known:
        by_id = {known.peer: known for known in candidates}
        if by_id.keys().isdisjoint(self._order):
            self._order = self.rng.sample(list(by_id), len(by_id))
        peer = next(peer for peer in self._order if peer in by_id)
        self._order.remove(peer)
        return by_id[peer]
