"""All live peers in one meeting: the all-reduce of DiLoCo (arXiv 2311.08105), without its barrier.

Whoever is ripe first in an order that all share calls the others; who does not come in time, or
dies on the way, is missing in that meeting and in nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.matching._order import recent_last, require_member, shared_order
from swarmnet.wire.messages import MAX_GROUP


class Everyone:
    """One group of everybody; a swarm above ``MAX_GROUP`` is dealt into equal ones anew."""

    class Config(Section):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def candidates(
        self, me: str, live: Sequence[str], history: Sequence[str], rng: random.Random
    ) -> list[str]:
        return recent_last(live, history, rng)

    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None:
        """None, unless there are but two: a group has no pairs."""
        group = self.group(me, roster, index, seed)
        return next(peer for peer in group if peer != me) if len(group) == 2 else None

    def rounds(self, n: int) -> int:
        """One meeting is the exact mean; it takes as many groups as the swarm is dealt into."""
        return max(0, min(n - 1, 1)) if n <= MAX_GROUP else 2 * (n - 1).bit_length()

    def size(self, n: int) -> int:
        return -(-n // -(-n // MAX_GROUP)) if n else 0

    def quorum(self, n: int) -> int:
        return self.size(n)

    def group(self, me: str, roster: Sequence[str], index: int, seed: int) -> tuple[str, ...]:
        require_member(me, roster)
        order = shared_order(roster, index, seed)
        groups = -(-len(order) // MAX_GROUP)
        return tuple(order[order.index(me) % groups :: groups])
