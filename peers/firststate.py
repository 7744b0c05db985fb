"""Own checkpoint, somebody's state, or the run's seed: where a starting worker begins.

A pure rule on what it sees. Its measure is the run's training time, ``elapsed_s``: steps count a
machine's speed, and clocks can be set. Two things must never happen: that a peer which is not
healed yet gives its state, and that somebody begins from the seed while others hold a trained
state. So whoever comes up first after a power cut waits for those that are further, and takes part
in what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class First(Enum):
    OWN = "checkpoint"
    DONOR = "donor"
    SEED = "seed"
    WAIT = "wait"
    LOST = "lost"
    """The run was trained, and nobody who holds a state is there."""


@dataclass(frozen=True)
class Sight:
    """What a starting worker sees; seconds of the run's training time, None where nobody is.

    ``healthy``: the furthest that trains or serves. ``healing``: the furthest that lives and is
    not healed yet; it says how old its own checkpoint is. ``remembered``: what bootstraps saw.
    """

    own: float | None
    healthy: float | None
    healing: float | None
    remembered: float | None


def choose(sight: Sight, waited_s: float, stale_s: float, patience_s: float) -> First:
    """What to do after looking around for ``waited_s``.

    An own checkpoint serves until others are ``stale_s`` further. Then those that are healthy give
    their state; those that are about to be, and those that the bootstrap remembers, are waited
    for, but not for ever: the furthest of those that came has to begin.
    """
    if sight.own is None:
        return _newcomer(sight, waited_s < patience_s)
    stale_at = sight.own + stale_s
    if _beyond(sight.healthy, stale_at):
        return First.DONOR
    hoped = sight.healing if sight.healthy is not None else _later(sight.healing, sight.remembered)
    if _beyond(hoped, stale_at) and waited_s < patience_s:
        return First.WAIT
    return First.OWN


def _newcomer(sight: Sight, patient: bool) -> First:
    if sight.healthy is not None:
        return First.DONOR
    if sight.healing is not None:
        return First.WAIT
    if sight.remembered is not None:
        return First.WAIT if patient else First.LOST
    return First.SEED


def _beyond(said: float | None, limit: float) -> bool:
    return said is not None and said > limit


def _later(one: float | None, other: float | None) -> float | None:
    return max((said for said in (one, other) if said is not None), default=None)
