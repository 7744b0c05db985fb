"""Who waits for a partner: what keeps offers few when most peers are between two windows.

An offer that is declined is not wasted: the decliner now knows somebody who waits. It calls that
peer when its own window is ripe, and names it to others who call in vain meanwhile. So a ripe
peer asks one stranger, then mostly waits to be called, and two waiting peers find each other
through anybody whom both have asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from swarmnet.wire.messages import MAX_HINTS, Hint

MEMORY_STEPS = 0.3
"""A peer that waited this many of my steps ago has probably met somebody."""
MAX_KNOWN = 256


class _News(NamedTuple):
    at: float
    waits: bool


class Waiters:
    """The newest news of each peer: whether it waits, and the time at which that was true."""

    def __init__(self) -> None:
        self._news: OrderedDict[str, _News] = OrderedDict()

    def add(self, peer: str, since: float) -> None:
        """``peer`` waited at ``since``; older news than what is known changes nothing."""
        known = self._news.get(peer)
        if known is None or since > known.at:
            self._learn(peer, _News(since, waits=True))

    def settle(self, peer: str, now: float) -> None:
        """It met somebody, or said that it does not wait: rumours from before are stale."""
        self._learn(peer, _News(now, waits=False))

    def among(self, peers: Sequence[str], now: float, step_s: float) -> list[str]:
        """Those of ``peers`` that may still wait, in the given order; old news is forgotten."""
        oldest = now - MEMORY_STEPS * step_s
        for peer in [peer for peer, news in self._news.items() if news.at < oldest]:
            del self._news[peer]
        return [peer for peer in peers if peer in self._news and self._news[peer].waits]

    def hints(self, asker: str, now: float, step_s: float) -> tuple[Hint, ...]:
        """Whom ``asker`` should call instead, those heard of last first."""
        others = [peer for peer in self.among(list(self._news), now, step_s) if peer != asker]
        others.sort(key=lambda peer: self._news[peer].at, reverse=True)
        return tuple(
            Hint(peer=peer, age_s=now - self._news[peer].at) for peer in others[:MAX_HINTS]
        )

    def _learn(self, peer: str, news: _News) -> None:
        self._news[peer] = news
        self._news.move_to_end(peer)
        if len(self._news) > MAX_KNOWN:
            self._news.popitem(last=False)
