"""Everybody in turn, fast or slow: what the other wirings are compared with."""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.wiring._pool import Known, Pool


class RoundRobin(Pool):
    """Equal shares in a fixed order, newcomers first."""

    class Config(Section):
        pass

    def __init__(self, config: Config, rng: random.Random) -> None:
        super().__init__(config, rng)
        self._turn = 0

    def _choose(self, candidates: Sequence[Known], size: float, now: float) -> Known:
        return min(candidates, key=lambda known: known.load)

    def _charge(self, known: Known, size: float) -> float:
        self._turn += 1
        known.load = self._turn
        return 0.0
