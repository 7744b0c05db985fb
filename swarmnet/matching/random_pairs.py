"""Random pairs, NoLoCo's matching (arXiv 2506.10911, section 3.2).

A scheduled round halves the variance between replicas on average (large N), so the
``2 ceil(log2 n)`` rounds of a consensus phase leave about 1 / n of the distance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.matching._order import recent_last, require_member, shared_order
from swarmnet.matching._pairs import Pairs


class RandomPairs(Pairs):
    """Anybody with anybody, those first whom one has not met lately."""

    class Config(Section):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def candidates(
        self, me: str, live: Sequence[str], history: Sequence[str], rng: random.Random
    ) -> list[str]:
        return recent_last(live, history, rng)

    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None:
        require_member(me, roster)
        order = shared_order(roster, index, seed)
        other = order.index(me) ^ 1
        return order[other] if other < len(order) else None

    def rounds(self, n: int) -> int:
        return 2 * max(n - 1, 0).bit_length()
