"""The desk between two threads: a snapshot stands still while out, nothing is applied twice."""

import threading

import numpy as np
import pytest

from swarmnet.errors import LinkError
from swarmnet.events import ExchangeDone
from swarmnet.exchange.desk import Desk, Settlement


class OneBuffer:
    """A subject that captures into one buffer, as replicas do."""

    def __init__(self, size=4):
        self.live = np.zeros(size)
        self.buffer = np.zeros(size)

    def capture(self):
        self.buffer[:] = self.live
        return self.buffer


def always(step, progress):
    return True


def event(round_=1, outcome="ok"):
    return ExchangeDone(phase="train", outcome=outcome, partner="peerAnnAnn", round=round_)


def settlement(apply=lambda: None, step=0, returns=None, round_=1):
    return Settlement(apply, event(round_), step, returns)


@pytest.fixture
def subject():
    return OneBuffer()


@pytest.fixture
def desk(subject):
    return Desk(subject, always)


def test_without_a_boundary_there_is_no_snapshot(desk):
    assert not desk.has_snapshot()
    with pytest.raises(LinkError):
        desk.take()


def test_no_snapshot_is_made_that_nobody_wants(subject):
    desk = Desk(subject, lambda step, progress: step >= 3)
    for step in range(4):
        desk.boundary(step, 0.0)
        assert desk.has_snapshot() == (step == 3)


def test_a_snapshot_that_is_no_longer_wanted_does_not_wait_for_the_next_window(subject):
    desk = Desk(subject, lambda step, progress: step != 2)
    desk.boundary(1, 0.0)
    assert desk.has_snapshot()
    desk.boundary(2, 0.0)
    assert not desk.has_snapshot()


def test_a_snapshot_is_taken_once(desk):
    desk.boundary(1, 0.0)
    assert desk.take().step == 1
    assert not desk.has_snapshot()
    with pytest.raises(LinkError):
        desk.take()


def test_a_snapshot_stands_still_while_it_is_out(desk, subject):
    desk.boundary(1, 0.0)
    snapshot = desk.take()
    for step in range(2, 10):
        subject.live += 1
        desk.boundary(step, 0.0)
        assert not snapshot.vector.any()
        assert not desk.has_snapshot()


def test_a_fresh_snapshot_follows_the_weights_until_it_is_taken(desk, subject):
    for step in range(3):
        subject.live += 1
        desk.boundary(step, 0.0)
    assert desk.take().vector.tolist() == [3.0] * 4


def test_settlements_are_applied_once_in_order_and_with_their_staleness(desk):
    desk.boundary(4, 0.0)
    out = desk.take()
    applied = []
    desk.settle(settlement(lambda: applied.append("late"), 1, round_=1))
    desk.settle(settlement(lambda: applied.append("met"), 4, out, round_=2))
    events = desk.boundary(7, 0.0)
    assert applied == ["met", "late"]
    assert [(e.round, e.staleness) for e in events] == [(2, 3), (1, 6)]
    assert desk.boundary(8, 0.0) == []
    assert applied == ["met", "late"]


def test_a_late_correction_waits_until_the_snapshot_is_back(desk):
    """The meeting's own step, from a snapshot without it, would carry it a second time."""
    desk.boundary(1, 0.0)
    snapshot, applied = desk.take(), []
    desk.settle(settlement(lambda: applied.append("late")))
    assert desk.boundary(2, 0.0) == []
    assert not desk.has_snapshot()
    desk.put_back(snapshot)
    assert not desk.has_snapshot(), "the correction will outdate it"
    assert len(desk.boundary(3, 0.0)) == 1
    assert applied == ["late"]
    assert desk.take().step == 3


def test_a_snapshot_of_another_phase_neither_comes_back_nor_frees_the_one_that_is_out(desk):
    desk.boundary(1, 0.0)
    old = desk.take()
    desk.clear()
    desk.put_back(old)
    assert not desk.has_snapshot()
    desk.boundary(2, 0.0)
    new = desk.take()
    desk.put_back(old)
    desk.settle(settlement(returns=old))
    desk.boundary(3, 0.0)
    assert not desk.has_snapshot(), "the new one is still out"
    desk.put_back(new)
    assert desk.take() is new


def test_a_snapshot_that_a_due_settlement_outdates_does_not_count(desk, subject):
    desk.boundary(1, 0.0)
    desk.settle(settlement(lambda: subject.live.__iadd__(1)))
    assert not desk.has_snapshot()
    desk.boundary(1, 0.0)
    assert desk.take().vector.tolist() == [1.0] * 4


def test_a_snapshot_that_was_put_back_may_be_taken_again(desk, subject):
    desk.boundary(1, 0.0)
    snapshot = desk.take()
    desk.put_back(snapshot)
    assert desk.take() is snapshot
    desk.put_back(snapshot)
    subject.live += 1
    desk.boundary(2, 0.0)
    assert desk.take().step == 2


def test_wake_comes_after_the_boundary_and_outside_the_lock(desk):
    seen = []
    desk.wake = lambda step, progress: seen.append((step, progress, desk.has_snapshot()))
    desk.boundary(5, 0.25)
    assert seen == [(5, 0.25, True)]


def test_two_threads_never_tear_a_snapshot_nor_lose_or_repeat_a_settlement():
    """One thread steps, one meets; every third meeting is put back."""
    size, meetings = 2_000, 300
    subject = OneBuffer(size)
    desk = Desk(subject, always)
    applied, torn, done = [], [], threading.Event()
    woken = threading.Semaphore(0)
    desk.wake = lambda step, progress: woken.release()

    def meet():
        for number in range(meetings):
            while not desk.has_snapshot():
                assert woken.acquire(timeout=10)
            snapshot = desk.take()
            first = snapshot.vector.copy()
            woken.acquire(timeout=10)  # a boundary passes while the snapshot is out
            if len(set(first)) != 1 or (snapshot.vector != first).any():
                torn.append(number)
            if number % 3 == 2:
                desk.put_back(snapshot)
            else:
                desk.settle(settlement(lambda n=number: applied.append(n), snapshot.step, snapshot))
        done.set()

    partner = threading.Thread(target=meet)
    partner.start()
    step, events = 0, []
    while not done.is_set():
        subject.live += 1
        step += 1
        events += desk.boundary(step, 0.0)
    partner.join()
    events += desk.boundary(step, 0.0)
    assert torn == []
    assert applied == [n for n in range(meetings) if n % 3 != 2]
    assert len(events) == len(applied)
    assert min(e.staleness for e in events) >= 0
