"""How long a sequence takes at one peer: an average of what it did, forgetting the old."""

from __future__ import annotations

WEIGHT = 0.1
K_MEAN = 4.0
K_SPREAD = 6.0


class Estimate:
    """A moving average with bias correction (SWARM's), and one of the distance from it.

    Seconds per sequence. After any number of equal samples it is exactly their value. Waits that
    a deadline ended are samples as well: an answer would have taken at least as long.
    """

    __slots__ = ("_distance", "_distance_mass", "_mass", "_sum", "latest")

    def __init__(self) -> None:
        self._sum = self._mass = 0.0
        self._distance = self._distance_mass = 0.0
        self.latest = 0.0

    def add(self, value: float, weight: float = WEIGHT) -> None:
        """One sample; a larger ``weight`` forgets faster what was before."""
        if self._mass:
            gap = abs(value - self._sum / self._mass)
            self._distance += weight * (gap - self._distance)
            self._distance_mass += weight * (1 - self._distance_mass)
        self._sum += weight * (value - self._sum)
        self._mass += weight * (1 - self._mass)
        self.latest = value

    @property
    def value(self) -> float | None:
        """The average; None before the first sample."""
        return self._sum / self._mass if self._mass else None

    @property
    def late(self) -> float | None:
        """What takes longer than this is no longer the same behaviour; None: nothing known."""
        value = self.value
        if value is None:
            return None
        spread = self._distance / self._distance_mass if self._distance_mass else 0.0
        return max(K_MEAN * value, value + K_SPREAD * spread)
