"""Placement: which stage a peer serves, decided from a view that all peers see alike.

A pipeline is as fast as its slowest stage, and a stage as fast as its peers together. A newcomer
goes where the load is highest; a settled peer moves only when the slowest stage gains enough to
pay for the download, and only if it is the one that everybody with this view would name. That
two views may differ for a moment is the business of ``lease``.

SWARM (arXiv 2301.11913) moves by the length of queues, every period, whether that helps or not:
queues are noisy and grow with the number of peers. Here rates are compared, not queues.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ALIKE = 0.1
"""Loads that differ by less than this share count as equal: newcomers spread over them."""

AHEAD = 0.5
"""Of the mover's rate: so much faster than the slowest stage was must the stage it leaves be."""


@dataclass(frozen=True, slots=True)
class Serving:
    """One peer of a stage, in its own words. Rates in sequences per second, forward and backward.

    Durations only: readers compare no clocks with it.
    """

    peer: str
    stage: int
    rate: float
    """What it can serve, measured while busy; 0: not measured yet, the median counts."""
    demand: float = 0.0
    """What was asked of it lately, averaged over time, refused or not."""
    settled_s: float = float("inf")
    """How long it has been serving this stage."""
    ready: bool = True
    """False while it downloads: it counts for what will be, and cannot be sent elsewhere."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When a move is worth it."""

    gain: float = 0.1
    """The least relative gain of the slowest stage; below it, noise would move peers."""
    floor: int = 2
    """A stage with so many peers that are ready, or fewer, is never left."""
    cool_down_s: float = 120.0
    """A peer stays where it is for so long at least."""


@dataclass(frozen=True, slots=True)
class Move:
    """``peer`` leaves ``source`` for ``target``, whose share of the swarm's work grows so much."""

    peer: str
    source: int
    target: int
    gain: float


def join(view: Sequence[Serving], stages: int, me: str) -> int:
    """The stage that newcomer ``me`` goes to: the one with most demand per rate.

    A stage that nobody serves comes first. Without demand in the view (a run that has just
    begun) it is the slowest stage. Newcomers with one view and a choice of equals spread.
    """
    rates = throughputs(view, stages)
    demand = [0.0] * stages
    for serving in view:
        demand[serving.stage] += serving.demand
    asked = demand if all(d > 0 for d, r in zip(demand, rates, strict=True) if r > 0) else None
    load = [
        float("inf") if rate == 0 else (asked[stage] if asked else 1.0) / rate
        for stage, rate in enumerate(rates)
    ]
    most = max(load)
    alike = [stage for stage in range(stages) if load[stage] >= most * (1 - ALIKE)]
    return min(alike, key=lambda stage: _draw(f"{me}/{stage}"))


def migrate(view: Sequence[Serving], stages: int, rules: Rules) -> Move | None:
    """The one move that all who see this view agree on; None: everybody stays.

    The sorted throughputs of all stages are to grow in lexicographic order: where several stages
    are the slowest, helping one of them does not raise the minimum yet, but has to come first. A
    move changes two stages only, so that order grows just when the lower one of the two does:
    min(A - r, B + r) > B, for the slowest stage B. The giver must stay ahead by half of what it
    gives, A - r >= B + r / 2: of equal peers no noise below that makes 3 and 2 out of 2 and 3.
    """
    rates = throughputs(view, stages)
    slowest = min(range(stages), key=lambda stage: (rates[stage], stage))
    ready = [0] * stages
    for serving in view:
        ready[serving.stage] += serving.ready
    usual = _usual(view)
    best: tuple[float, float, bytes] | None = None
    mover = None
    for serving in view:
        may = serving.ready and serving.settled_s >= rules.cool_down_s
        if serving.stage == slowest or not may or ready[serving.stage] <= rules.floor:
            continue
        rate = serving.rate or usual
        left = rates[serving.stage] - rate
        if left < rates[slowest] + rate * AHEAD:
            continue
        rank = min(left, rates[slowest] + rate), left, _draw(serving.peer)
        if best is None or rank > best:
            best, mover = rank, serving
    if best is None or mover is None or best[0] < rates[slowest] * (1 + rules.gain):
        return None
    gain = best[0] / rates[slowest] - 1 if rates[slowest] else float("inf")
    return Move(mover.peer, mover.stage, slowest, gain)


def throughputs(view: Sequence[Serving], stages: int) -> list[float]:
    """Sequences per second of each stage when all who are on their way have arrived."""
    usual = _usual(view)
    rates = [0.0] * stages
    for serving in view:
        rates[serving.stage] += serving.rate or usual
    return rates


def _usual(view: Sequence[Serving]) -> float:
    return statistics.median([s.rate for s in view if s.rate > 0] or [1.0])


def _draw(text: str) -> bytes:
    """A place in an order that looks random and is the same on every machine."""
    return hashlib.sha256(text.encode()).digest()
