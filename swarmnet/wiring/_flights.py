"""What a trainer has asked of one peer and has not heard of yet."""

from __future__ import annotations

from dataclasses import dataclass

FORGET_S = 120.0
"""Beyond a pick's patience. Its input may wait that long for the stages before this one."""


@dataclass(frozen=True, slots=True)
class Flight:
    """One pick. ``queued``: sequences of this trainer at the peer then, its own included."""

    size: float
    queued: float
    cost: float
    lapses: float


class Flights:
    """The open picks of one peer, oldest first. One that nobody reports on lapses."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: list[Flight] = []

    def __len__(self) -> int:
        return len(self._open)

    @property
    def sequences(self) -> float:
        return sum(flight.size for flight in self._open)

    @property
    def lapse_at(self) -> float:
        """When the oldest pick is forgotten at the latest. Only while there is one."""
        return self._open[0].lapses

    def add(self, size: float, cost: float, lapses: float) -> None:
        self._open.append(Flight(size, self.sequences + size, cost, lapses))

    def close(self, size: float | None = None) -> Flight | None:
        """The oldest pick (of that size) is over; None: no such pick is open."""
        for at, flight in enumerate(self._open):
            if size is None or flight.size == size:
                return self._open.pop(at)
        return None

    def clear(self) -> None:
        self._open.clear()

    def sweep(self, now: float) -> None:
        self._open = [flight for flight in self._open if flight.lapses > now]
