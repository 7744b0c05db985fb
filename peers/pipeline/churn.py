"""What befalls a pipeline on this machine, and when: a pure plan over what its events said.

It begins lopsided, so placement has somebody to move. Then a peer of a middle stage is killed, and
when its mates have noticed, a newcomer looks for its place by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from peers.story import Record

Act = Literal["kill", "join"]

KILL_AT, JOIN_AT = 1 / 3, 1 / 2
MOVED_BY = 0.45
"""The kill waits for the move until here: each is to be seen by itself."""
RENEWALS_TO_NOTICE = 5
"""A dead peer counts as alive for three renewals, and its last word may be one old."""


def spread(peers: int, stages: int, *, lopsided: bool) -> list[int]:
    """How many begin at each stage; lopsided: one of the last stage's begins at the first."""
    counts = [peers // stages + (stage < peers % stages) for stage in range(stages)]
    if lopsided and counts[-1] > 1:
        counts[0] += 1
        counts[-1] -= 1
    return counts


@dataclass
class Churn:
    """The plan for ``stages`` stages whose peers renew their records every ``renew_s``."""

    stages: int
    renew_s: float
    serves: dict[str, int] = field(default_factory=dict)
    """Peer by name -> the stage that it serves, as it said last."""
    progress: float = 0.0
    moved: bool = False
    killed_at: float | None = None
    joined: bool = False

    def hear(self, event: Record) -> None:
        if event["event"] == "stage_taken":
            self.serves[event["peer"]] = int(event["stage"])
            self.moved = self.moved or int(event["left"]) >= 0
        elif event["event"] == "trips":
            self.progress = max(self.progress, float(event["progress"]))

    def due(self, now: float) -> Act | None:
        """What is to happen now, once; ``now`` in seconds of a clock that does not jump."""
        if self.killed_at is None:
            ripe = self.progress >= KILL_AT and (self.moved or self.progress >= MOVED_BY)
            if not ripe or self.victim() is None:
                return None
            self.killed_at = now
            return "kill"
        noticed = now >= self.killed_at + RENEWALS_TO_NOTICE * self.renew_s
        if self.joined or self.progress < JOIN_AT or not noticed:
            return None
        self.joined = True
        return "join"

    def victim(self) -> str | None:
        """A peer of the middle stage, unless it is alone there; then of another one."""
        middle = self.stages // 2
        for stage in (middle, *range(self.stages)):
            peers = self._of(stage)
            if len(peers) > 1:
                return peers[0]
        return None

    def _of(self, stage: int) -> Sequence[str]:
        return sorted(name for name, served in self.serves.items() if served == stage)
