"""Which checkpoints stay: the newest few, and one of each hour that the run has trained.

Hours are counted on the run's own training time, which stands in each checkpoint, and order on a
serial number in its name: no clock that somebody can set decides what is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HOUR_S = 3600.0


@dataclass(frozen=True)
class Entry:
    """A checkpoint on disk: its place in the order of writing, and when in the run it was."""

    serial: int
    elapsed_s: float


@dataclass(frozen=True)
class Ring:
    """``last`` newest ones, and the first of each of the newest ``hourly`` hours.

    The first of an hour stays the first: what was chosen once is not written again and again.
    """

    last: int = 3
    hourly: int = 0
    owner: Mapping[str, Any] = field(default_factory=dict)
    """Values in the meta that make a checkpoint this writer's own; others' are never deleted."""

    def staying(self, entries: Sequence[Entry]) -> set[int]:
        """The serials that stay; the newest is always among them."""
        ordered = sorted(entries, key=lambda entry: entry.serial)
        staying = {entry.serial for entry in ordered[-max(1, self.last) :]}
        hours: dict[int, int] = {}
        for entry in ordered:
            hours.setdefault(int(entry.elapsed_s // HOUR_S), entry.serial)
        newest = sorted(hours)[-self.hourly :] if self.hourly else []
        return staying | {hours[hour] for hour in newest}
