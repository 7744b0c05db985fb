"""What a child needs to be told of a storm: walls, slow lines and wrong clocks, in one small file.

The starter writes it whole or not at all, children look at it a few times a second. It is a
laboratory's means between processes of one user and never comes from the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from swarmnet.files import replace_text

MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class Line:
    """A slow line: bytes per second each way, and seconds until an answer begins."""

    rate: float
    latency_s: float


@dataclass(frozen=True)
class Weather:
    """All by peer id. ``far``: who is beyond the wall; ``clocks``: seconds a clock is ahead."""

    far: frozenset[str] = frozenset()
    lines: Mapping[str, Line] = field(default_factory=dict)
    clocks: Mapping[str, float] = field(default_factory=dict)

    def walled(self, one: str, other: str) -> bool:
        return (one in self.far) != (other in self.far)


def write(path: Path, weather: Weather) -> None:
    """Raises OSError."""
    lines = {peer: asdict(line) for peer, line in weather.lines.items()}
    said = {"far": sorted(weather.far), "lines": lines, "clocks": dict(weather.clocks)}
    replace_text(path, json.dumps(said))


def read(path: Path) -> Weather | None:
    """None when there is no file, or one that cannot be read: the weather stays as it was."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(MAX_BYTES + 1))
        lines = {str(peer): Line(**line) for peer, line in said["lines"].items()}
        clocks = {str(peer): float(by_s) for peer, by_s in said["clocks"].items()}
        return Weather(frozenset(said["far"]), lines, clocks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
