"""Where the training thread and the exchange hand things to each other without waiting.

The training thread comes by at every step boundary: it takes the settlements that are due and
leaves a fresh snapshot. The exchange takes a snapshot when a meeting is agreed and brings back a
settlement. One snapshot is *out* at a time; while it is out it is immutable, no new one is made,
and nothing is applied but what brings it back: its own step would carry a correction that came
between a second time. A snapshot that is *kept* is on offer, with its payload being encoded: it
stays the one to take until something is applied. The lock is held for the copy of a snapshot and
for pointer swaps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from swarmnet.errors import LinkError
from swarmnet.events import ExchangeDone
from swarmnet.exchange.subject import Subject, Vector


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
    step: int
    """Inner steps behind the snapshot that it came from."""
    returns: Snapshot | None
    """The snapshot that it brings back; None for a correction that comes after its own step."""


class Desk:
    """Thread-safe meeting point. ``wake`` is called after every boundary, by its caller."""

    def __init__(self, subject: Subject, wants: Callable[[int, float], bool]) -> None:
        self._subject = subject
        self._wants = wants
        self._lock = threading.Lock()
        self._fresh: Snapshot | None = None
        self._out: Snapshot | None = None
        self._kept = False
        self._due: list[Settlement] = []
        self.wake: Callable[[int, float], None] = lambda step, progress: None
        self.waited_s = 0.0
        """What the exchange made the training thread wait, all boundaries together."""

    def boundary(self, step: int, progress: float) -> list[ExchangeDone]:
        """Training thread, between two inner steps: apply what is due, leave a snapshot."""
        asked = time.perf_counter()
        with self._lock:
            self.waited_s += time.perf_counter() - asked
            applied = self._apply_due()
            self._kept = self._kept and self._fresh is not None and not applied
            if not self._kept:
                wanted = self._wants(step, progress) and self._out is None
                self._fresh = Snapshot(step, self._subject.capture()) if wanted else None
        self.wake(step, progress)
        return [replace(s.event, staleness=step - s.step) for s in applied]

    def _apply_due(self) -> list[Settlement]:
        """What brings a snapshot back comes first; the others wait while one is out."""
        due, self._due, applied = self._due, [], []
        for settlement in sorted(due, key=lambda s: s.returns is None):
            if settlement.returns is None and self._out is not None:
                self._due.append(settlement)
                continue
            settlement.apply()
            applied.append(settlement)
            if self._out is settlement.returns:
                self._out = None
        return applied

    @property
    def all_applied(self) -> bool:
        """Training thread: all that was settled is in the weights, so they may be kept."""
        with self._lock:
            return not self._due

    def has_snapshot(self) -> bool:
        """Whether there is one to take that no settlement of the next boundary will outdate."""
        with self._lock:
            return self._fresh is not None and not self._due

    def keep(self) -> Snapshot:
        """Exchange: about to offer this one; boundaries leave it. Raises LinkError as ``take``."""
        with self._lock:
            self._kept = self._fresh is not None
            return self._there()

    def release(self) -> None:
        """Exchange: it is not on offer any more; the next boundary makes a newer one."""
        with self._lock:
            self._kept = False

    def clear(self) -> None:
        """Training thread: what a snapshot holds has changed its meaning."""
        with self._lock:
            self._fresh, self._kept, self._out = None, False, None

    def take(self) -> Snapshot:
        """Exchange: a meeting is agreed; the snapshot is out until its settlement is applied.

        Raises:
            LinkError: there is none, because another meeting was faster.
        """
        with self._lock:
            snapshot = self._there()
            self._fresh, self._kept, self._out = None, False, snapshot
            return snapshot

    def settle(self, settlement: Settlement) -> None:
        """Exchange: to be applied at the next boundary."""
        with self._lock:
            self._due.append(settlement)

    def put_back(self, snapshot: Snapshot) -> None:
        """Exchange: the meeting came to nothing; an alternate may use the same snapshot.

        One that was out before ``clear`` is nobody's any more.
        """
        with self._lock:
            if self._out is snapshot:
                self._fresh, self._out = snapshot, None

    def _there(self) -> Snapshot:
        if self._fresh is None:
            raise LinkError("no snapshot to exchange")
        return self._fresh
