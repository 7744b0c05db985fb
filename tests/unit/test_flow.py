"""A trainer's window against lines and stages of known speed, in virtual time."""

from __future__ import annotations

import heapq
import random

from swarmnet.pipeline.flow import Flow

STAGES, PEERS, MOST = 3, 3, 64
BUSY_S = 0.05


class Line:
    """Serves one after the other, ``each_s`` a piece."""

    def __init__(self, each_s):
        self.each_s, self.free_at = each_s, 0.0

    def through(self, at):
        self.free_at = max(self.free_at, at) + self.each_s
        return self.free_at


def settle(link_s, delay_s, trips=3000):
    """(window, trips per second) after so many trips through a link and three stages."""
    flow, luck = Flow(STAGES, MOST, MOST), random.Random(1)
    flow.serve(PEERS)
    link, stages = Line(link_s), [Line(BUSY_S) for _ in range(STAGES)]
    ends, now, half_at = [], 0.0, 0.0
    for number in range(trips):
        while len(ends) < flow.window:
            at = link.through(now) + delay_s
            for index, stage in enumerate(stages):
                done = stage.through(at)
                flow.waited(index, done - at - BUSY_S, BUSY_S * luck.uniform(0.8, 1.2))
                at = done + delay_s
            heapq.heappush(ends, (at, now))
        now, began = heapq.heappop(ends)
        flow.completed(now - began)
        if number == trips // 2:
            half_at = now
    return flow.window, (trips - trips // 2) / (now - half_at)


def test_a_thin_link_is_kept_busy_and_not_overfilled():
    window, rate = settle(link_s=0.5, delay_s=0.05)
    assert rate > 0.99 / 0.5
    assert window <= 4 * (PEERS + STAGES)


def test_a_long_way_is_filled_until_the_stages_are_busy():
    window, rate = settle(link_s=0.0, delay_s=0.5)
    assert rate > 0.95 / BUSY_S
    assert window >= 2.0 / BUSY_S


def test_stages_next_door_are_kept_busy_by_a_small_window():
    window, rate = settle(link_s=0.0, delay_s=0.0)
    assert rate > 0.99 / BUSY_S
    assert window <= 3 * (PEERS + STAGES)


def test_a_swarm_that_became_slower_is_not_taken_for_a_queue_for_ever():
    flow = Flow(STAGES, MOST, MOST)
    windows = []
    for seconds, trips in ((0.1, 400), (10.0, 4000)):
        for _ in range(trips):
            flow.completed(seconds)
            windows.append(flow.window)
    assert min(windows[400:]) == 2 * STAGES < windows[399]
    assert windows[-1] > 2 * STAGES
