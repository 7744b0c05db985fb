"""Learning rate over the swarm's progress: late joiners and slow peers fall in step by it."""

from __future__ import annotations

import math

from swarmnet.config import Schedule


def rate(progress: float, peak: float, schedule: Schedule) -> float:
    """Linear warm-up to ``peak``, then a cosine down to ``peak * schedule.final``.

    Args:
        progress: share of the run that is done; values outside 0 to 1 count as the nearer end.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < schedule.warmup:
        return peak * progress / schedule.warmup
    way = (progress - schedule.warmup) / (1.0 - schedule.warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * way))
    return peak * (schedule.final + (1.0 - schedule.final) * cosine)
