"""What a simulated network is made of: links between peers, and each peer's own line."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """One direction between two peers: seconds, and bytes per second of each stream.

    With ``sigma`` the latency of every message is drawn anew from a log-normal law whose mean is
    ``latency_s`` and whose logarithm has the standard deviation ``sigma`` (std / mean is 1.31 at
    sigma 1). The order within a stream is kept: a message may wait for the one before it.
    """

    latency_s: float = 0.01
    bandwidth: float = 100e6
    sigma: float = 0.0

    def draw(self, rng: random.Random) -> float:
        """Seconds on the way of one message."""
        if not self.sigma:
            return self.latency_s
        return self.latency_s * math.exp(self.sigma * (rng.gauss() - self.sigma / 2))


@dataclass(frozen=True)
class Access:
    """A peer's own connection, shared by all of its streams: bytes per second each way."""

    up: float = math.inf
    down: float = math.inf


class Line:
    """One direction of an access: messages pass one after the other."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    def carry(self, nbytes: int, since: float) -> float:
        """When a message has passed whose first byte is there at ``since``."""
        if self._rate == math.inf:
            return since
        self._free_at = max(since, self._free_at) + nbytes / self._rate
        return self._free_at


@dataclass
class Cut:
    """A scripted fault of one stream: it breaks when ``sender`` has sent ``after_bytes``."""

    opener: str
    sender: str
    after_bytes: int
    topic: str = "exchange"
    used: bool = False
