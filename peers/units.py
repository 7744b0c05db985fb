"""Figures as people read them."""

from __future__ import annotations

import math


def clock(seconds: float) -> str:
    """``0:07``, ``12:30`` or ``1:02:03``."""
    whole = max(int(seconds), 0)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes with a decimal unit: ``3.6 MB``."""
    return f"{_scaled(count, ('B', 'kB', 'MB', 'GB', 'TB'))}"


def amount(count: float) -> str:
    """A count with a decimal suffix: ``1.56 M``."""
    return _scaled(count, ("", "k", "M", "G", "T")).strip()


def percent(share: float) -> str:
    """A share with two digits that mean something: ``0.8 %``, ``12 %``."""
    points = share * 100
    return f"{points:.0f} %" if abs(points) >= 9.95 else f"{points:.1f} %"


def short(value: float) -> str:
    """Three significant digits, without a needless exponent: ``0.00604``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.3g}"


def printable(text: str, limit: int = 32) -> str:
    """``text`` of a peer, cut and without anything that could drive a terminal."""
    clean = "".join(letter if letter.isprintable() else "\N{MIDDLE DOT}" for letter in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _scaled(count: float, suffixes: tuple[str, ...]) -> str:
    value = float(count)
    for suffix in suffixes[:-1]:
        if abs(value) < 999.5:
            digits = 0 if suffix == suffixes[0] or abs(value) >= 99.5 else 1
            return f"{value:.{digits}f} {suffix}"
        value /= 1000
    return f"{value:.1f} {suffixes[-1]}"
