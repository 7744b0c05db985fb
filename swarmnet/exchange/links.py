"""Deadlines that come from what links did before: median plus k times the median deviation."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque

HISTORY = 32
K_MAD = 6.0
FLOOR_S = 2.0
"""Below that a busy machine's scheduler, not the link, decides."""
FIRST_S = 5.0
CEILING_S = 20.0
"""libp2p itself notices a dead link after 35 s; a deadline must be shorter to be of use."""


class Links:
    """The longest wait of each of the last meetings, per partner, in seconds."""

    def __init__(self) -> None:
        self._waits: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=HISTORY))

    def observe(self, peer: str, waited_s: float) -> None:
        self._waits[peer].append(waited_s)

    def deadline_s(self, peer: str) -> float:
        """How long to wait for this peer's next sign before the meeting counts as lost."""
        waits = self._waits.get(peer)
        if not waits or len(waits) < 4:
            return FIRST_S
        median = statistics.median(waits)
        mad = statistics.median(abs(wait - median) for wait in waits)
        return min(max(median + K_MAD * mad, 4 * median, FLOOR_S), CEILING_S)
