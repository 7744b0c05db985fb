"""How fast a peer gives while it trains: a budget in bytes per second that all its askers share."""

from __future__ import annotations

CORE_S_PER_GIB = 2.3
"""What giving costs the giver's machine: the daemon, and our copy, hash and hand-over."""
_GIB = 1 << 30


class Pace:
    """A line at a counter: who comes is told how long to wait before its bytes may go.

    Pure; all times are seconds on the caller's clock.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_at = 0.0

    @classmethod
    def of(cls, share: float, cores: float) -> Pace:
        """``share`` of a machine's ``cores`` goes into giving."""
        return cls(share * cores * _GIB / CORE_S_PER_GIB)

    def wait_s(self, nbytes: int, now: float) -> float:
        """Seconds to wait before ``nbytes`` go out; they are booked."""
        start = max(self._free_at, now)
        self._free_at = start + nbytes / self.bytes_per_s
        return start - now
