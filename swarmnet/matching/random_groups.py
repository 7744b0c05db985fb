"""Random groups of a few: between gossip's pairs and everybody.

A meeting of g leaves 1/g of the variance between its members, so g = 4 does in one meeting what
pairs do in two, for three payloads instead of two.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from swarmnet.config import Section
from swarmnet.matching._order import recent_last, require_member, shared_order
from swarmnet.wire.messages import MAX_GROUP


class RandomGroups:
    """``size`` peers meet; a call closes when ``quorum`` of them came and the others are late."""

    class Config(Section):
        size: int = Field(4, ge=3, le=MAX_GROUP, description="members of a meeting")
        quorum: int = Field(3, ge=2, description="members that a call waits for")

        @model_validator(mode="after")
        def _is_reachable(self) -> Self:
            if self.quorum > self.size:
                raise ValueError(f"quorum = {self.quorum} is above size = {self.size}")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    def candidates(
        self, me: str, live: Sequence[str], history: Sequence[str], rng: random.Random
    ) -> list[str]:
        return recent_last(live, history, rng)

    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None:
        """None, unless a group of two is left over: a group has no pairs."""
        group = self.group(me, roster, index, seed)
        return next(peer for peer in group if peer != me) if len(group) == 2 else None

    def rounds(self, n: int) -> int:
        return 2 * max(n - 1, 0).bit_length()

    def size(self, n: int) -> int:
        return min(n, self.config.size)

    def quorum(self, n: int) -> int:
        return min(n, self.config.quorum)

    def group(self, me: str, roster: Sequence[str], index: int, seed: int) -> tuple[str, ...]:
        require_member(me, roster)
        order = shared_order(roster, index, seed)
        groups = -(-len(order) // self.config.size)
        return tuple(order[order.index(me) % groups :: groups])
