"""Orders of peers: one that all compute alike, and one of a peer's own."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence


def shared_order(roster: Sequence[str], index: int, seed: int) -> list[str]:
    """The roster in an order that looks random and is the same on every machine.

    Sorted by hash and not shuffled: ``random.shuffle`` may differ between Python versions.
    """

    def place(peer: str) -> bytes:
        return hashlib.sha256(f"{seed}/{index}/{peer}".encode()).digest()

    return sorted(roster, key=place)


def recent_last(live: Sequence[str], history: Sequence[str], rng: random.Random) -> list[str]:
    """``live`` shuffled, with the recent partners at the end, the most recent one last.

    At most half of the live peers count as recent: with more, a small swarm would meet in a
    fixed rotation, and news would travel along one ring.
    """
    others = set(live)
    newest_first = [peer for peer in dict.fromkeys(reversed(history)) if peer in others]
    recent = newest_first[: len(live) // 2]
    rest = sorted(others.difference(recent))
    rng.shuffle(rest)
    return rest + recent[::-1]


def require_member(me: str, roster: Sequence[str]) -> None:
    """Raises ValueError when ``me`` is not on the roster."""
    if me not in roster:
        raise ValueError(f"{me} is not on the roster of {len(roster)}")
