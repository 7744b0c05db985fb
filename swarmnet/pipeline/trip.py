"""One sample on its way, as its trainer sees it, and the count of all of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Load:
    """One microbatch as it travels: (rows, length + 1) int32 ids."""

    rows: int
    length: int
    ids: memoryview


@dataclass(frozen=True)
class Letting:
    """The peer of a stage is asked to let go of a sample.

    ``passed``: it is not what failed, but there is no other way past what failed.
    """

    stage: int
    peer: str
    until: float
    passed: bool


@dataclass
class Trip:
    """One sample on its way. Times are the trainer's monotonic seconds."""

    sample: int
    load: Load
    began: float
    route: list[str | None]
    attempt: int = -1
    open_picks: set[int] = field(default_factory=set)
    """Stages whose wiring has not heard what became of its pick."""
    met: set[str] = field(default_factory=set)
    """Everybody who may keep something of it."""
    came: dict[int, float] = field(default_factory=dict)
    """When each stage's input was on its way to it, in this attempt."""
    forwarded: dict[int, float] = field(default_factory=dict)
    """When each stage sent its output on; those that may still hold it."""
    answered: dict[int, float] = field(default_factory=dict)
    counted: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Who counted the sample for a stage, and the version it then had."""
    settled: set[int] = field(default_factory=set)
    avoid: dict[int, set[str]] = field(default_factory=dict)
    at: float = 0.0
    """The last sign of life of this attempt."""
    late: int = 0
    parked: bool = False
    letting: Letting | None = None
    asked_at: float = -math.inf
    loss: float | None = None

    @property
    def still(self) -> bool:
        """Nothing of it is on its way."""
        return self.parked or self.letting is not None

    def mask(self) -> frozenset[int]:
        """Stages that still have to count."""
        done = self.counted.keys() | self.settled
        return frozenset(stage for stage in range(len(self.route)) if stage not in done)


@dataclass
class Ledger:
    """Every sample that this trainer ever began is in exactly one of open, whole and settled."""

    begun: int = 0
    whole: int = 0
    """Counted at every stage, not yet part of a step everywhere."""
    settled: int = 0
    attempts: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    """Why attempts beyond the first were made."""


@dataclass(frozen=True)
class Finished:
    """A trip was counted at every stage, for the first time."""

    sample: int
    loss: float
    tokens: int
    seconds: float
