"""A stage's peers and one trainer in virtual time, as tests of wirings need them."""

import heapq
import itertools
import random

from swarmnet import registry


def built(name, seed=0):
    cls = registry.find("wiring", name)
    return cls(cls.Config(), random.Random(seed))


def drive(wiring, pace, until, window=8, hung=lambda peer, now: False):
    """Picks as (time, peer) of a trainer that keeps ``window`` microbatches of size 1 in flight.

    ``pace``: peer -> seconds per sequence, one after the other. What is sent to a peer while it
    is ``hung`` is never answered.
    """
    busy = dict.fromkeys(pace, 0.0)
    picks, events, order = [], [], itertools.count()
    now, idle = 0.0, window
    while now < until:
        while idle and (peer := wiring.pick(1, now)) is not None:
            picks.append((now, peer))
            idle -= 1
            due = now + wiring.patience_s(peer, 1)
            if not hung(peer, now):
                busy[peer] = max(busy[peer], now) + pace[peer]
            answers = not hung(peer, now) and busy[peer] <= due
            at = busy[peer] if answers else due
            heapq.heappush(events, (at, next(order), peer, now, answers))
        woken = wiring.next_at(now) if idle else None
        if woken is not None and (not events or woken < events[0][0]):
            now = woken
            continue
        assert events, "nothing in flight, and nobody to pick, ever"
        now, _, peer, sent, answers = heapq.heappop(events)
        idle += 1
        if answers:
            wiring.finished(peer, 1, now - sent, now)
        else:
            wiring.late(peer, 1, now - sent, now)
    return picks


def share(picks, peer, start, end):
    """Of the picks made in [start, end)."""
    within = [name for at, name in picks if start <= at < end]
    return within.count(peer) / len(within)
