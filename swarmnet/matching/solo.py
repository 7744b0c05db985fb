"""Nobody meets anybody: the control of every comparison, and a run on one machine."""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.matching._order import require_member
from swarmnet.matching._pairs import Pairs


class Solo(Pairs):
    """The matching of a replica that trains alone among others."""

    class Config(Section):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def candidates(
        self, me: str, live: Sequence[str], history: Sequence[str], rng: random.Random
    ) -> list[str]:
        return []

    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None:
        require_member(me, roster)
        return None

    def rounds(self, n: int) -> int:
        return 0

    def size(self, n: int) -> int:
        return min(n, 1)
