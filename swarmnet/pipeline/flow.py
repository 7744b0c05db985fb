"""How many microbatches a trainer keeps under way: enough that no stage runs dry, no more.

Each receipt tells how long the sample waited at a stage and how long it was worked on. While the
fullest stage lets a sample wait for less than another one takes, the window grows; when samples
wait for more than two, it shrinks, but never below one for each peer and one on its way to each
stage. So the window follows the latency of the network by itself, and
several trainers share the stages as senders share a queue (the idea of delay-based congestion
control, Brakmo and Peterson 1995).
"""

from __future__ import annotations

SMOOTHING = 0.1
FEW_S = 1e-4
GROW_BELOW, SHRINK_ABOVE = 1.0, 2.5


class Flow:
    """One trainer's window. ``most_unsettled`` bounds what waits for its stages to step."""

    def __init__(self, stages: int, most: int, most_unsettled: int) -> None:
        self.window = min(2 * stages, most)
        self.most_unsettled = most_unsettled
        self._most = most
        self._least = min(stages, most)
        self._waits = [0.0] * stages
        self._since = 0

    def serve(self, peers: int) -> None:
        """So many serve, all stages together: fewer samples than that leave somebody idle."""
        self._least = min(peers + len(self._waits), self._most)
        self.window = max(self.window, self._least)

    def waited(self, stage: int, waited_s: float, busy_s: float) -> None:
        """A forward waited so long at ``stage``, and took so long."""
        lengths = waited_s / max(busy_s, FEW_S)
        self._waits[stage] += SMOOTHING * (lengths - self._waits[stage])

    def completed(self, seconds: float) -> None:
        """A trip is over: the window moves by one at most once in a window's length."""
        self._since += 1
        if self._since < self.window // 2:
            return
        self._since = 0
        longest = max(self._waits)
        if longest < GROW_BELOW:
            self.window = min(self.window + 1, self._most)
        elif longest > SHRINK_ABOVE:
            self.window = max(self.window - 1, self._least)
