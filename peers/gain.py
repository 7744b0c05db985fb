"""What a swarm gained over one worker alone, from losses and steps."""

from __future__ import annotations

import math

LEAST_SPEEDUP = 0.5
"""Two losses so close in steps say nothing about a curve further away than this."""


def speedup(merged_loss: float, at_t: tuple[int, float], at_13t: tuple[int, float]) -> float | str:
    """How many times a swarm worker's steps one worker alone takes to the merged loss.

    Between its two measured ends, (steps, loss) each, the lone worker's loss is taken as linear
    in the logarithm of its steps.

    Returns:
        The factor; ``">=1.3"`` when even the longer run ends above ``merged_loss``. Below 1 the
        line is extrapolated as far as ``"<=0.5"``; where the longer run is not the better one
        there is no line, and a swarm that lost to the shorter gets ``"<=1"``.

    Raises:
        ValueError: a loss is not finite, or the second run is not the longer one.
    """
    (few, before), (many, after) = at_t, at_13t
    if not all(map(math.isfinite, (merged_loss, before, after))) or not 0 < few < many:
        raise ValueError("a speedup needs finite losses and two growing numbers of steps")
    ratio = many / few
    if merged_loss == before:
        return 1.0
    if merged_loss < min(before, after):
        return f">={ratio:.3g}"
    if after >= before:
        return "<=1"
    factor = ratio ** ((before - merged_loss) / (before - after))
    return factor if factor > LEAST_SPEEDUP else f"<={LEAST_SPEEDUP:g}"
