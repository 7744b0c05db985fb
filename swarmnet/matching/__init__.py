"""Matchings: who meets whom.

While training nobody waits: a peer walks its ``candidates`` until one accepts. Where all know
the same roster (the consensus phase, simulations), ``partner`` is a schedule that every peer
computes for itself and that agrees without a message. Policies of pairs get what concerns
groups from ``_pairs``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol


class Matching(Protocol):
    """Peers are named by id; the result depends on the arguments alone."""

    def candidates(
        self, me: str, live: Sequence[str], history: Sequence[str], rng: random.Random
    ) -> list[str]:
        """Whom ``me`` offers to, best first.

        ``live``: ids of the other live peers, never ``me``. ``history``: own recent partners,
        newest last; they may be gone from ``live``. ``rng``: the peer's own.
        """
        ...

    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None:
        """The partner of ``me`` in round ``index`` (from 0), or None when idle; symmetric.

        ``roster`` holds ``me`` and may come in any order; ``seed`` is the run's.

        Raises:
            ValueError: ``me`` is not on the roster.
        """
        ...

    def rounds(self, n: int) -> int:
        """Scheduled rounds that begin a consensus phase of ``n`` peers; 0: it meets nobody."""
        ...

    def size(self, n: int) -> int:
        """How many meet at once where ``n`` peers live, at most n; 2 and less are pairs."""
        ...

    def quorum(self, n: int) -> int:
        """How many make a meeting worthwhile; more are waited for only as long again."""
        ...

    def group(self, me: str, roster: Sequence[str], index: int, seed: int) -> tuple[str, ...]:
        """Whom ``me`` meets in round ``index``, itself included: the same tuple at each of them.

        The first one leads. Alone: idle. Raises ValueError as ``partner``.
        """
        ...
