"""How far the run has come, as a bootstrap remembers it over its own restarts.

A worker that comes up first after a power cut sees nobody who trains. The bootstrap tells it that
the run has begun, so it does not begin from the seed while others hold a trained state.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from swarmnet.exchange.membership import Membership
from swarmnet.files import replace_text

FILE = "progress.json"
WRITE_S = 5.0


@dataclass(frozen=True)
class Milestone:
    """The furthest state that was seen: its step, and the training time behind it."""

    step: int = 0
    elapsed_s: float = 0.0


class Memory:
    """One bootstrap's milestone, in ``folder``. A disk that refuses costs the memory only."""

    def __init__(self, folder: Path, worth_s: float) -> None:
        """``worth_s``: a run that trained for less may be begun anew; who has it on a disk yet?"""
        self._path = folder / FILE
        self._worth_s = worth_s
        self._furthest = self._read()
        self._every_s = min(WRITE_S, worth_s)
        self._written_at = float("-inf")

    @property
    def told(self) -> Milestone:
        """What others hear: nothing, or a state that somebody should still hold."""
        return self._furthest if self._furthest.elapsed_s >= self._worth_s else Milestone()

    def look(self, members: Membership, workers: list[str]) -> None:
        """Take in how far the live ``workers`` are."""
        now = time.monotonic()
        known = [status for peer in workers if (status := members.status(peer))]
        seen = [Milestone(s.step, s.elapsed_s) for s in known if s.step > 0]
        furthest = max([self._furthest, *seen], key=lambda milestone: milestone.elapsed_s)
        if furthest != self._furthest:
            self._furthest = furthest
            if now - self._written_at >= self._every_s:
                self._written_at = now
                self._write()

    def _read(self) -> Milestone:
        try:
            said = json.loads(self._path.read_bytes())
            return Milestone(int(said["step"]), float(said["elapsed_s"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Milestone()

    def _write(self) -> None:
        with suppress(OSError):
            replace_text(self._path, json.dumps(asdict(self._furthest)))
