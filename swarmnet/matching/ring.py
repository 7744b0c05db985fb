"""Neighbours on a ring: the bad mixer that others are measured against.

News travels one place a meeting. Two scheduled rounds, over the even edges and then the odd ones,
leave cos^2(2 pi / n) of the slowest wave, so n peers need of the order of n^2 rounds where random
pairs need log n (Xiao and Boyd, "Fast linear iterations for distributed averaging", 2004).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.matching._order import recent_last, require_member, shared_order
from swarmnet.matching._pairs import Pairs


class Ring(Pairs):
    """Everybody meets its two neighbours in an order that all compute alike."""

    class Config(Section):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def candidates(
        self, me: str, live: Sequence[str], history: Sequence[str], rng: random.Random
    ) -> list[str]:
        """The neighbours, the one met last in second place. Views that differ bend the ring."""
        order = shared_order([*live, me], 0, 0)
        place = order.index(me)
        neighbours = {order[place - 1], order[(place + 1) % len(order)]} - {me}
        return recent_last(sorted(neighbours), history, rng)

    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None:
        """Over the even edges in even rounds, over the odd ones in odd rounds."""
        require_member(me, roster)
        order = shared_order(roster, 0, seed)
        n = len(order)
        # An odd ring cannot be paired off: where its pairs begin moves on, and all idle in turn.
        place = (order.index(me) - index) % n if n % 2 else (order.index(me) - index % 2) % n
        if place == n - 1 and n % 2:
            return None
        step = 1 if place % 2 == 0 else -1
        return order[(order.index(me) + step) % n]

    def rounds(self, n: int) -> int:
        """Enough to halve the distance: of the order of n^2."""
        return 2 + n * n // 16 if n > 1 else 0
