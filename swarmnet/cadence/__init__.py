"""Cadences: when a replica looks for a partner, and when it lets itself be found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Window:
    """Where a replica stands between two meetings."""

    steps_since: int  # inner steps since the last snapshot was taken
    total_steps: int  # inner steps of this replica since its first
    progress: float  # share of the run that is over, 0 to 1
    step_s: float = 0.0  # seconds that a step of mine takes, smoothed; 0 while not known


class Cadence(Protocol):
    """A pure rule on the own window. There is no global round that it could wait for."""

    def ready(self, window: Window) -> bool:
        """Offer a meeting now?"""
        ...

    def willing(self, window: Window) -> bool:
        """Accept somebody else's offer now? True wherever ``ready`` is, and earlier."""
        ...
