"""The stopwatch of a meeting: what it measures, from frames and times alone."""

import pytest

from swarmnet.exchange.timing import Timing
from swarmnet.wire import Frame, Kind

ACCEPT = Frame(Kind.ACCEPT, b"")
HAVE = Frame(Kind.HAVE, b"")


def part(nbytes=1000):
    return Frame(Kind.PART, bytes(nbytes))


def test_a_caller_times_answer_start_pace_and_waits():
    timing = Timing(began=10.0, called=True)
    assert timing.awaits_answer
    timing.received(ACCEPT, asked=10.3, now=10.5)
    asked = 10.5
    for now in (13.5, 14.0, 14.5, 15.0):
        timing.received(part(), asked, now)
        asked = now
    timing.received(HAVE, 15.0, 15.2)
    assert timing.answer_s == pytest.approx(0.5)
    assert timing.receive_s == pytest.approx(4 * 0.5)
    assert timing.start_s == pytest.approx(3.0 - 0.5)
    assert timing.longest_s == pytest.approx(3.0)
    assert timing.payload_received == 4000


def test_what_a_hold_takes_is_not_the_links_doing():
    timing = Timing(began=0.0, called=True)
    timing.received(Frame(Kind.HOLD, b""), 0.0, 0.2)
    timing.received(ACCEPT, asked=0.2, now=9.0)
    timing.received(part(), asked=9.0, now=9.1)
    timing.received(part(), asked=9.1, now=9.2)
    assert timing.answer_s == pytest.approx(0.2)
    assert timing.longest_s == pytest.approx(0.1)
    assert timing.start_s == pytest.approx(0.0)


def test_a_slow_link_is_not_a_late_start():
    timing = Timing(began=0.0, called=True)
    timing.received(ACCEPT, 0.0, 1.0)
    for number in range(1, 6):
        timing.received(part(), 0.0, 1.0 + 7.0 * number)
    assert timing.start_s == pytest.approx(0.0)
    assert timing.receive_s == pytest.approx(35.0)


def test_parts_of_unequal_size_are_weighed_by_their_bytes():
    timing = Timing(began=0.0, called=True)
    timing.received(ACCEPT, 0.0, 0.0)
    for nbytes, now in ((1000, 1.0), (1000, 2.0), (500, 2.5)):
        timing.received(part(nbytes), 0.0, now)
    assert timing.receive_s == pytest.approx(2.5)


def test_an_acceptor_times_neither_answer_nor_start():
    timing = Timing(began=0.0)
    assert not timing.awaits_answer
    for now in (3.0, 4.0):
        timing.received(part(), 0.0, now)
    assert (timing.answer_s, timing.start_s) == (0.0, 0.0)
    assert timing.longest_s == 4.0
    assert timing.receive_s == pytest.approx(2.0)


def test_what_one_part_took_is_not_known():
    timing = Timing(began=0.0, called=True)
    timing.received(ACCEPT, 0.0, 0.1)
    timing.received(part(), 0.1, 9.0)
    timing.sent(part(), 5.0)
    assert (timing.receive_s, timing.send_s, timing.start_s) == (0.0, 0.0, 0.0)


def test_my_own_payload_is_timed_apart():
    timing = Timing(began=0.0)
    for now in (1.0, 3.0, 5.0):
        timing.sent(part(), now)
        timing.sent(HAVE, now)
    assert timing.send_s == pytest.approx(6.0)
    assert timing.payload_sent == 3000
    assert timing.receive_s == 0.0


def test_a_wait_for_the_answer_counts_from_the_call():
    timing = Timing(began=2.0, called=True)
    timing.gave_up(asked=5.0, now=9.0)
    assert timing.gave_up_s == 7.0
    timing = Timing(began=2.0, called=True)
    timing.received(ACCEPT, 2.0, 3.0)
    timing.gave_up(asked=5.0, now=9.0)
    assert timing.gave_up_s == 4.0
