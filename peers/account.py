"""A worker's numbers: what it has read, for how long, how fast, and what its meetings came to."""

from __future__ import annotations

import time

import psutil

from swarmnet.events import ExchangeDone, PeerFinished
from swarmnet.train.loop import Step

SMOOTHING = 0.1
COUNTED_AS = {"ok": "ok", "solo": "solo", "failed": "failed", "pending": "failed"}


class Account:
    """Written by the training thread, ``note`` by the network thread too; read after both."""

    def __init__(self) -> None:
        self.tokens = 0
        self.base_elapsed_s = 0.0
        """Training time of the run before this process took its first step."""
        self.first_step = 0
        self.rate = 0.0
        """Tokens per second, smoothed."""
        self._began: float | None = None
        self._train_s = 0.0
        self._stall_s = 0.0
        self._counts = {"ok": 0, "solo": 0, "failed": 0}
        self._bytes = 0

    def begin(self) -> bool:
        """Training time runs from here on; whether it did not before."""
        if self._began is not None:
            return False
        self._began = time.monotonic()
        return True

    @property
    def elapsed_s(self) -> float:
        since = time.monotonic() - self._began if self._began is not None else 0.0
        return self.base_elapsed_s + since

    def stepped(self, step: Step, seconds: float, stall_s: float) -> None:
        """One inner step took ``seconds``, of which it waited ``stall_s`` for the exchange."""
        self.tokens += step.tokens
        self._train_s += seconds
        self._stall_s += stall_s
        now = step.tokens / max(seconds, 1e-6)
        self.rate = now if not self.rate else self.rate + SMOOTHING * (now - self.rate)

    def note(self, event: ExchangeDone) -> None:
        if event.outcome in COUNTED_AS:
            self._counts[COUNTED_AS[event.outcome]] += 1
        self._bytes += event.bytes_sent

    def gave(self, nbytes: int) -> None:
        """Beside meetings."""
        self._bytes += nbytes

    def finished(self, reason: str, step: int) -> PeerFinished:
        """The last word of a worker that stands after ``step``."""
        return PeerFinished(
            reason=reason,
            steps=step - self.first_step,
            tokens=self.tokens,
            bytes_sent=self._bytes,
            train_s=self._train_s,
            stall_s=self._stall_s,
            memory=psutil.Process().memory_info().rss,
            **self._counts,
        )
