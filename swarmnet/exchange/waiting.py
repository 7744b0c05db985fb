"""When other peers' windows open: what keeps offers few when most peers are between two windows.

Every peer knows when its own window will open, and says so whenever it declines or has met. Such
words travel on with every offer and answer, with their age. So a ripe peer calls one that has just
opened or that is known to wait, and asks a stranger only when it knows of nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from swarmnet.wire.messages import MAX_HINTS, Hint

MAX_KNOWN = 256


class _Word(NamedTuple):
    said_at: float
    opens_at: float


class Waiters:
    """The newest word of each peer, and until when it may be believed."""

    def __init__(self) -> None:
        self._words: OrderedDict[str, _Word] = OrderedDict()

    def add(self, peer: str, said_at: float, opens_at: float) -> None:
        """``peer`` said so at ``said_at``; an older word than what is known changes nothing."""
        known = self._words.get(peer)
        if known is None or said_at > known.said_at:
            self.settle(peer, said_at, opens_at)

    def settle(self, peer: str, now: float, opens_at: float) -> None:
        """First hand: it met somebody, or declined; rumours from before are stale."""
        self._words[peer] = _Word(now, opens_at)
        self._words.move_to_end(peer)
        if len(self._words) > MAX_KNOWN:
            self._words.popitem(last=False)

    def forget(self, peer: str) -> None:
        """What was said is about to be outdated."""
        self._words.pop(peer, None)

    def opening(self, peers: Sequence[str], now: float, trust_s: float) -> dict[str, float]:
        """When those of ``peers`` open or, within ``trust_s``, have opened; old words are lost."""
        oldest = now - trust_s
        for peer in [peer for peer, word in self._words.items() if word.opens_at < oldest]:
            del self._words[peer]
        return {peer: self._words[peer].opens_at for peer in peers if peer in self._words}

    def hints(self, asker: str, now: float, trust_s: float) -> tuple[Hint, ...]:
        """Whom ``asker`` may call: those that open next or have opened last."""
        opening = self.opening([peer for peer in self._words if peer != asker], now, trust_s)
        nearest = sorted(opening, key=lambda peer: (abs(opening[peer] - now), peer))
        return tuple(
            Hint(
                peer=peer,
                age_s=max(0.0, now - self._words[peer].said_at),
                opens_s=max(0.0, opening[peer] - self._words[peer].said_at),
            )
            for peer in nearest[:MAX_HINTS]
        )
