"""How many microbatches a trainer keeps under way: enough that no stage runs dry, no more.

Each receipt tells how long the sample waited at a stage and how long it was worked on. While the
fullest stage lets a sample wait for less than another one takes, the window grows; when samples
wait for more than two, it shrinks, but never below one for each peer and one on its way to each
stage. So the window follows the latency of the network by itself, and several trainers share the
stages as senders share a queue.

Stages see no queue where a link is the narrow place: its samples wait in the network. What waits
anywhere is the window times the share of a trip's time beyond that of the quickest (Brakmo and
Peterson 1995, TCP Vegas); the window grows only while that is less than the least window, and
shrinks above twice of it. The quickest is learned anew only below twice the least window: a
fuller one would come to take its own queue for the way.
"""

from __future__ import annotations

import math

SMOOTHING = 0.1
FEW_S = 1e-4
GROW_BELOW, SHRINK_ABOVE = 1.0, 2.5
FORGET = 1.1
"""How much slower the quickest trip counts after each one in a small window."""


class Flow:
    """One trainer's window. ``most_unsettled`` bounds what waits for its stages to step."""

    def __init__(self, stages: int, most: int, most_unsettled: int) -> None:
        self.window = min(2 * stages, most)
        self.most_unsettled = most_unsettled
        self._most = most
        self._least = min(stages, most)
        self._waits = [0.0] * stages
        self._since = 0
        self._quickest_s = math.inf
        self._trip_s = 0.0

    def serve(self, peers: int) -> None:
        """So many serve, all stages together: fewer samples than that leave somebody idle."""
        self._least = min(peers + len(self._waits), self._most)
        self.window = max(self.window, self._least)

    def waited(self, stage: int, waited_s: float, busy_s: float) -> None:
        """A forward waited so long at ``stage``, and took so long."""
        lengths = waited_s / max(busy_s, FEW_S)
        self._waits[stage] += SMOOTHING * (lengths - self._waits[stage])

    def completed(self, seconds: float) -> None:
        """A trip without repairs is over: the window moves by one at most once in its length."""
        forget = FORGET if self.window <= 2 * self._least else 1.0
        self._quickest_s = min(self._quickest_s * forget, seconds)
        self._trip_s += SMOOTHING * (seconds - self._trip_s) if self._trip_s else seconds
        self._since += 1
        if self._since < self.window // 2:
            return
        self._since = 0
        longest, waiting = max(self._waits), self._waiting
        if longest > SHRINK_ABOVE or waiting > 2 * self._least:
            self.window = max(self.window - 1, self._least)
        elif longest < GROW_BELOW and waiting < self._least:
            self.window = min(self.window + 1, self._most)

    @property
    def _waiting(self) -> float:
        """Samples of this trainer that wait somewhere, at a stage or at a link."""
        return self.window * (1 - min(1.0, self._quickest_s / self._trip_s))
