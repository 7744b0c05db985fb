"""Rows of figures side by side, as text for people and as a dictionary for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One way of doing the same work, per round. ``ratio`` is to the median of the floor."""

    name: str
    seconds_median: float
    seconds_worst: float
    success: float
    bytes_per_peer: int
    cpu_seconds: float
    ratio: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def render(rows: Sequence[Row]) -> str:
    lines = [
        f"{'':22}{'s/round':>9}{'worst':>9}{'success':>9}{'MB/peer':>9}{'cpu s':>8}{'ratio':>8}"
    ]
    lines += [
        f"{r.name:22}{r.seconds_median:9.3f}{r.seconds_worst:9.3f}{r.success:9.0%}"
        f"{r.bytes_per_peer / 1e6:9.2f}{r.cpu_seconds:8.2f}{r.ratio:8.2f}"
        for r in rows
    ]
    return "\n".join(lines)
