"""How far the run is: the larger of tokens over the target and elapsed time over the limit.

Both come from grow-only counters that peers publish, so a late joiner falls in step and a fast
machine does not end the schedule for others. What a pipeline's weights hold is a floor under its
readers' counters.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from swarmnet.config import Target
from swarmnet.exchange.membership import Membership


@dataclass(frozen=True)
class _Others:
    tokens: int
    committed: int
    elapsed_s: float
    at: float


class Progress:
    """Read by the training thread, refreshed in the network's loop; one reference is swapped."""

    def __init__(self, target: Target, membership: Membership) -> None:
        self._target = target
        self._membership = membership
        self._others = _Others(0, 0, 0.0, time.monotonic())

    def refresh(self) -> None:
        """Network loop: count what the others have done."""
        now = time.monotonic()
        tokens = self._membership.swarm_tokens(0, now)
        elapsed_s = self._membership.swarm_elapsed_s(0.0, now)
        self._others = _Others(tokens, self._membership.committed(), elapsed_s, now)

    def elapsed_s(self, own: float) -> float:
        """Seconds since the run's first inner step, wherever that was taken."""
        others = self._others
        since = time.monotonic() - others.at if others.elapsed_s else 0.0
        return max(own, others.elapsed_s + since)

    def tokens(self, own: int, committed: int = 0) -> int:
        """Tokens that the whole run has read, at least those ``committed`` in a stage's steps."""
        return max(self._others.tokens + own, self._others.committed, committed)

    def share(self, own_tokens: int, own_elapsed_s: float, committed: int = 0) -> float:
        """0 at the first inner step of the run, 1 when it is over."""
        tokens = self.tokens(own_tokens, committed) / self._target.tokens
        elapsed = self.elapsed_s(own_elapsed_s) / (60 * self._target.minutes)
        return min(1.0, max(tokens, elapsed))
