"""Pieces of a long vector that stay in the cache, so that in-place rules need no temporaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CPU_SPAN = 1 << 16
ACCELERATOR_SPAN = 1 << 24
"""There a launch costs more than memory does."""


def spans(vector: Tensor) -> Iterator[slice]:
    size = CPU_SPAN if vector.device.type == "cpu" else ACCELERATOR_SPAN
    for start in range(0, len(vector), size):
        yield slice(start, start + size)
