"""Deadlines follow what links did before, within a floor and a ceiling."""

import random

import pytest

from swarmnet.exchange.links import (
    CEILING_S,
    FIRST_S,
    FLOOR_S,
    HEDGE_FIRST_S,
    HEDGE_FLOOR_S,
    HISTORY,
    MAX_PEERS,
    OVERALL,
    RETRY_FLOOR_S,
    STRANGER_SLACK,
    Links,
)
from swarmnet.exchange.timing import Timing
from swarmnet.wire import Frame, Kind

ANN, BOB = "peerAnnAnn", "peerBobBob"


def links(*waits):
    seen = Links()
    for wait in waits:
        seen.observe(ANN, wait)
    return seen


def met(answer_s=0.1, rate=1e6, parts=5, part=100_000, called=True):
    """A meeting that received ``parts`` PARTs at ``rate`` bytes per second."""
    timing = Timing(began=50.0, called=called)
    now = 50.0 + answer_s
    if called:
        timing.received(Frame(Kind.ACCEPT, b""), 50.0, now)
    for _ in range(parts):
        now += part / rate
        timing.received(Frame(Kind.PART, bytes(part)), now - part / rate, now)
    return timing


def missed(waited_s, called=True):
    timing = Timing(began=0.0, called=called)
    timing.gave_up(0.0, waited_s)
    return timing


# ---- the deadline on progress ---------------------------------------------------------------


def test_constants_count_only_until_anybody_is_known():
    assert links().deadline_s(ANN) == FIRST_S
    assert links(9.0, 9.0, 9.0).deadline_s(ANN) == FIRST_S
    assert links(*[0.01] * 4).deadline_s(BOB) == STRANGER_SLACK * FLOOR_S
    assert links(*[2.0] * 4).deadline_s(BOB) == STRANGER_SLACK * 8.0


def test_a_stranger_gets_more_slack_than_a_friend_at_every_pace():
    for wait in (0.01, 0.3, 1.0, 2.0, 4.0):
        seen = links(*[wait] * 8)
        assert seen.deadline_s(ANN) < seen.deadline_s(BOB) <= CEILING_S


def test_asking_remembers_nobody():
    seen = links()
    for ask in (seen.deadline_s, seen.answer_s, seen.hedge_s, seen.retry_s):
        ask(ANN)
    assert seen.expected_s(ANN, 10) is None
    assert not seen._past


@pytest.mark.parametrize(("wait", "deadline"), [(0.001, FLOOR_S), (2.0, 8.0), (19.0, CEILING_S)])
def test_a_steady_link_gets_four_times_its_wait_within_bounds(wait, deadline):
    assert links(*[wait] * 10).deadline_s(ANN) == deadline


def test_an_unsteady_link_gets_six_deviations():
    assert links(1.0, 2.0, 3.0, 1.0, 3.0).deadline_s(ANN) == pytest.approx(2 + 6 * 1)


def test_one_stray_wait_changes_little():
    assert links(*[2.0] * 9, 1000.0).deadline_s(ANN) == 8.0


def test_only_the_last_waits_count():
    seen = links(*[5.0] * 100, *[0.1] * HISTORY)
    assert seen.deadline_s(ANN) == FLOOR_S
    assert len(seen._past[ANN].waits.values) == HISTORY
    assert len(seen._all.waits.values) == OVERALL


def test_a_deadline_that_keeps_passing_grows_until_it_fits():
    seen = links(*[0.5] * HISTORY)
    deadlines = []
    for _ in range(2 * HISTORY):
        deadlines.append(seen.deadline_s(ANN))
        seen.observe(ANN, deadlines[-1])
    assert deadlines[0] == max(4 * 0.5, FLOOR_S)
    assert deadlines[-1] == CEILING_S


# ---- answers --------------------------------------------------------------------------------


def answer(seen, peer, takes_s):
    """One call of a peer that answers after ``takes_s``. Whether the deadline let it."""
    deadline_s = seen.answer_s(peer)
    in_time = takes_s <= deadline_s
    seen.learn(peer, met(takes_s) if in_time else missed(deadline_s))
    return in_time


@pytest.mark.parametrize("known_s", [None, 0.01, 1.0])
def test_a_peer_that_is_merely_slow_is_not_cut_for_ever(known_s):
    seen = Links()
    for _ in range(20 if known_s else 0):
        answer(seen, ANN, known_s)
    tries = [answer(seen, BOB, 10.0) for _ in range(40)]
    first = tries.index(True)
    assert first <= 4
    assert all(tries[first:])
    assert 10.0 < seen.answer_s(BOB) <= CEILING_S
    if known_s:
        assert seen.answer_s(ANN) == max(4 * known_s, FLOOR_S)


def test_a_friend_that_becomes_slow_is_followed():
    seen = Links()
    assert all(answer(seen, ANN, 0.02) for _ in range(3 * HISTORY))
    tries = [answer(seen, ANN, 10.0) for _ in range(4 * HISTORY)]
    assert not tries[0]
    assert all(tries[-2 * HISTORY :])


def test_a_slow_answer_does_not_loosen_the_deadline_between_frames():
    seen = Links()
    for _ in range(8):
        seen.learn(ANN, met(answer_s=4.0))
    assert seen.answer_s(ANN) == 16.0
    assert seen.deadline_s(ANN) == FLOOR_S


# ---- hedges ---------------------------------------------------------------------------------


def test_a_hedge_waits_for_what_would_be_late_for_this_partner():
    seen = Links()
    assert seen.hedge_s(ANN) == HEDGE_FIRST_S
    for _ in range(8):
        seen.learn(ANN, met(answer_s=0.01))
    assert seen.hedge_s(ANN) == HEDGE_FLOOR_S
    for _ in range(8):
        seen.learn(BOB, met(answer_s=2.0))
    assert seen.hedge_s(BOB) == 8.0
    assert seen.hedge_s(ANN) == HEDGE_FLOOR_S


@pytest.mark.parametrize("seed", range(5))
def test_few_answers_of_a_calm_network_would_be_hedged(seed):
    """Log-normal answers with sigma 1: one partner's spread is no reason for a second offer."""
    dice = random.Random(seed)
    seen, hedged = Links(), 0
    for _ in range(400):
        takes_s = dice.lognormvariate(0.0, 1.0)
        hedged += takes_s > seen.hedge_s(ANN)
        seen.learn(ANN, met(takes_s))
    assert hedged / 400 < 0.12


# ---- durations and retries ------------------------------------------------------------------


def test_the_expected_duration_is_a_round_trip_and_the_bytes_at_the_rate_seen():
    seen = Links()
    for _ in range(5):
        seen.learn(ANN, met(answer_s=0.2, rate=2e6))
    assert seen.expected_s(ANN, 4_000_000) == pytest.approx(0.2 + 2.0)
    assert seen.expected_s(BOB, 4_000_000) == pytest.approx(0.2 + 2.0)
    for _ in range(5):
        seen.learn(BOB, met(answer_s=0.4, rate=1e6))
    assert seen.expected_s(BOB, 1_000_000) == pytest.approx(0.4 + 1.0)


def test_retries_back_off_while_a_peer_stays_silent_and_not_after_it_answered():
    seen = Links()
    assert seen.retry_s(ANN) == RETRY_FLOOR_S
    waits = []
    for _ in range(20):
        seen.learn(ANN, missed(1.0))
        waits.append(seen.retry_s(ANN))
    assert waits == sorted(waits)
    assert waits[0] == 2.0
    assert waits[-1] == CEILING_S
    seen.learn(ANN, met())
    assert seen.retry_s(ANN) < waits[0]


def test_memory_is_bounded_and_old_friends_become_strangers():
    seen = Links()
    for number in range(3 * MAX_PEERS):
        for _ in range(4):
            seen.learn(f"peer{number}", met())
        seen.learn(ANN, met())
    assert len(seen._past) == MAX_PEERS
    assert ANN in seen._past
    assert "peer0" not in seen._past
