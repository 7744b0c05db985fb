"""Where the training thread and the exchange hand things to each other without waiting.

The training thread comes by at every step boundary: it takes the settlements that are due and
leaves a fresh snapshot. The exchange takes a snapshot when a meeting is agreed and brings back a
settlement. One snapshot is *out* at a time; while it is out it is immutable, and no new one is
made, so one buffer serves. The lock is held for the copy of a snapshot and for pointer swaps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from swarmnet.errors import LinkError
from swarmnet.events import ExchangeDone

Vector = Any
"""Whatever the subject exchanges: this package never looks inside."""


class Subject(Protocol):
    """What is averaged, seen from the exchange: a flat vector with a codec and an outer step.

    ``capture``, ``apply_met``, ``apply_late`` and ``apply_solo`` run at a step boundary in the
    training thread; the others on the exchange's side, beside running inner steps.
    """

    layout: str
    nbytes: int
    steps_alone: bool
    """Whether the outer rule moves the weights in a window without a partner."""

    def capture(self) -> Vector:
        """Copy the live weights into the snapshot buffer and return it."""
        ...

    def encode(self, snapshot: Vector) -> memoryview:
        """My payload for this snapshot, ``nbytes`` long."""
        ...

    def correct(self, me: str, own: memoryview, peer: str, theirs: memoryview) -> Correction:
        """Decode both payloads and form my correction. Raises PayloadError."""
        ...

    def apply_met(self, snapshot: Vector, correction: Vector) -> None:
        """The whole outer step of a meeting, as displacement of the live weights."""
        ...

    def apply_solo(self, snapshot: Vector) -> None:
        """The outer step of a window without a partner."""
        ...

    def enter_consensus(self) -> None:
        """From here on meetings are pure averages of the weights; ``layout`` changes with it."""
        ...

    def apply_late(self, correction: Vector) -> None:
        """The correction of a meeting whose own part was applied earlier."""
        ...


@dataclass(frozen=True)
class Correction:
    """What a meeting adds to a solo step; the corrections of a group sum to zero."""

    vector: Vector
    distance: float
    """Root mean square of the difference between the two payloads."""


@dataclass(frozen=True)
class Snapshot:
    """Immutable while it is out. ``step`` counts the inner steps behind it."""

    step: int
    vector: Vector


@dataclass(frozen=True)
class Settlement:
    """What the training thread has to apply, and what to say about it afterwards."""

    apply: Callable[[], None]
    event: ExchangeDone
    snapshot_step: int
    returns_snapshot: bool


class Desk:
    """Thread-safe meeting point. ``wake`` is called after every boundary, by its caller."""

    def __init__(self, subject: Subject, wants: Callable[[int, float], bool]) -> None:
        self._subject = subject
        self._wants = wants
        self._lock = threading.Lock()
        self._fresh: Snapshot | None = None
        self._out = False
        self._due: list[Settlement] = []
        self.wake: Callable[[int, float], None] = lambda step, progress: None
        self.waited_s = 0.0
        """What the exchange made the training thread wait, all boundaries together."""

    def boundary(self, step: int, progress: float) -> list[ExchangeDone]:
        """Training thread, between two inner steps: apply what is due, leave a snapshot."""
        asked = time.perf_counter()
        with self._lock:
            self.waited_s += time.perf_counter() - asked
            due, self._due = self._due, []
            for settlement in due:
                settlement.apply()
                self._out = self._out and not settlement.returns_snapshot
            wanted = self._wants(step, progress) and not self._out
            self._fresh = Snapshot(step, self._subject.capture()) if wanted else None
        self.wake(step, progress)
        return [replace(s.event, staleness=step - s.snapshot_step) for s in due]

    def has_snapshot(self) -> bool:
        """Whether there is one to take that no settlement of the next boundary will outdate."""
        with self._lock:
            return self._fresh is not None and not self._due

    def take(self) -> Snapshot:
        """Exchange: a meeting is agreed; the snapshot is out until its settlement is applied.

        Raises:
            LinkError: there is none, because another meeting was faster.
        """
        with self._lock:
            if self._fresh is None:
                raise LinkError("no snapshot to exchange")
            snapshot, self._fresh, self._out = self._fresh, None, True
            return snapshot

    def settle(self, settlement: Settlement) -> None:
        """Exchange: to be applied at the next boundary."""
        with self._lock:
            self._due.append(settlement)

    def put_back(self, snapshot: Snapshot) -> None:
        """Exchange: the meeting came to nothing; an alternate may use the same snapshot."""
        with self._lock:
            self._fresh, self._out = snapshot, False
