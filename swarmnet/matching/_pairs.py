"""What all policies of pairs answer when asked about groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Pairs(ABC):
    """A policy whose meetings are of two."""

    @abstractmethod
    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None: ...

    def size(self, n: int) -> int:
        return min(n, 2)

    def quorum(self, n: int) -> int:
        return self.size(n)

    def group(self, me: str, roster: Sequence[str], index: int, seed: int) -> tuple[str, ...]:
        partner = self.partner(me, roster, index, seed)
        return (me,) if partner is None else tuple(sorted((me, partner)))
