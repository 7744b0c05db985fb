"""Axes and marks of the report's pictures, as inline SVG.

Colours are classes and custom properties of the page's style sheet, so one picture serves light
and dark mode. Text is escaped here; nobody else writes text into a picture.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

# Peers beyond the eighth reuse a colour and are told apart by their dashes.
COLOURS = 8
DASHES = ("", "6 3", "2 3", "8 3 2 3")

TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


def escape(text: str) -> str:
    """``text`` as HTML; characters that cannot be seen become a replacement character."""
    seen = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return html.escape(seen, quote=True)


@dataclass(frozen=True)
class Axis:
    """A range of values; logarithmic axes need ``low`` > 0."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where ``value`` lies between low (0) and high (1), kept inside."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def ticks(self, count: int = 6) -> list[float]:
        """About ``count`` round values inside the range."""
        return self._log_ticks(count) if self.log else self._ticks(count)

    def clock_ticks(self, count: int = 8) -> list[float]:
        """Round times in seconds."""
        span = self.high - self.low
        fits = (step for step in TIME_STEPS_S if span / step <= count)
        return _multiples(self.low, self.high, float(next(fits, span)))

    def _ticks(self, count: int) -> list[float]:
        span = (self.high - self.low) / count
        if span <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(span))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= span * 0.999)
        return _multiples(self.low, self.high, step)

    def _log_ticks(self, count: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for digits in ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 3), (1,)):
            values = [digit * 10.0**decade for decade in decades for digit in digits]
            found = [value for value in values if self.low <= value <= self.high]
            if len(found) <= count:
                break
        return found


@dataclass(frozen=True)
class Plot:
    """A rectangle of a picture (pixels of its view box) with an axis along each side."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def right(self) -> float:
        return self.left + self.width

    def px(self, value: float) -> float:
        return self.left + self.x.share(value) * self.width

    def py(self, value: float) -> float:
        return self.bottom - self.y.share(value) * self.height

    def line(self, points: Sequence[Point], style: str) -> str:
        """A line through the finite ones of ``points``; ``style``: attributes of the path."""
        known = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        if len(known) < 2:
            return ""
        path = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in known)
        return f'<polyline points="{path}" {style}/>'

    def dots(self, points: Sequence[Point], style: str, radius: float = 2.2) -> str:
        known = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        return "".join(
            f'<circle cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="{radius}" {style}/>'
            for x, y in known
        )

    def grid(self, labels: Sequence[tuple[float, str]]) -> str:
        """Horizontal lines with their values at the left."""
        return "".join(
            f'<line class="grid" x1="{self.left}" x2="{self.right}" y1="{self.py(v):.1f}"'
            f' y2="{self.py(v):.1f}"/>{text((self.left - 8, self.py(v) + 4), label, "end tick")}'
            for v, label in labels
        )

    def foot(self, labels: Sequence[tuple[float, str]]) -> str:
        """The base line with its values below."""
        base = (
            f'<line class="base" x1="{self.left}" x2="{self.right}" y1="{self.bottom}"'
            f' y2="{self.bottom}"/>'
        )
        spots = [text((self.px(v), self.bottom + 18), label, "mid tick") for v, label in labels]
        return base + "".join(spots)


def text(at: Point, content: str, style: str = "") -> str:
    return f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" class="{style}">{escape(content)}</text>'


def picture(size: tuple[float, float], parts: Sequence[str], label: str) -> str:
    """An SVG that takes the width it is given; ``label`` is what a screen reader says."""
    return (
        f'<svg viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def stroke(index: int) -> str:
    """Line style of the worker at place ``index``."""
    dash = DASHES[index // COLOURS % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{colour(index)}"{dashed}'


def colour(index: int) -> str:
    return f"var(--peer-{index % COLOURS})"


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most about ``most`` of the points, evenly taken, the last one kept."""
    stride = max(math.ceil(len(points) / most), 1)
    kept = list(points[::stride])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def smooth(points: Sequence[Point], keep: float) -> list[Point]:
    """Exponential moving averages from both ends, so that a steep fall is not drawn late."""
    known = [(x, y) for x, y in points if math.isfinite(y)]
    there = _averages([y for _, y in known], keep)
    back = _averages([y for _, y in reversed(known)], keep)[::-1]
    return [(x, (a + b) / 2) for (x, _), a, b in zip(known, there, back, strict=True)]


def _averages(values: Sequence[float], keep: float) -> list[float]:
    out: list[float] = []
    mean = weight = 0.0
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + 1 - keep
        out.append(mean / weight)
    return out


def _multiples(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
