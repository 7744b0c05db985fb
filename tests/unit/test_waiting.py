"""Rumours of who waits for a partner: aged, outdated by newer news, bounded."""

import pytest

from swarmnet.exchange.waiting import MAX_KNOWN, MEMORY_STEPS, Waiters
from swarmnet.wire.messages import MAX_HINTS, Hint

ANN, BOB, COE = "peerAnnAnn", "peerBobBob", "peerCoeCoe"
STEP_S = 10.0
FRESH_S = MEMORY_STEPS * STEP_S


def known(**since):
    waiters = Waiters()
    for name, at in since.items():
        waiters.add({"ann": ANN, "bob": BOB, "coe": COE}[name], at)
    return waiters


def test_hints_carry_ages_and_name_the_newest_first():
    hints = known(ann=99.0, bob=100.0, coe=98.5).hints("peerAsker", 100.5, STEP_S)
    assert hints == tuple(
        Hint(peer=peer, age_s=age) for peer, age in [(BOB, 0.5), (ANN, 1.5), (COE, 2.0)]
    )


def test_a_rumour_keeps_its_age_on_its_way():
    first, second, third = known(ann=100.0), Waiters(), Waiters()
    for teller, hearer, now in [(first, second, 101.0), (second, third, 102.0)]:
        for hint in teller.hints(BOB, now, STEP_S):
            hearer.add(hint.peer, now - hint.age_s)
    assert third.hints(BOB, 102.5, STEP_S) == (Hint(peer=ANN, age_s=2.5),)
    assert third.among([ANN], 100.0 + FRESH_S + 0.1, STEP_S) == []


def test_nobody_is_told_of_itself():
    assert known(ann=100.0).hints(ANN, 100.0, STEP_S) == ()


def test_as_many_hints_as_fit_and_no_more():
    waiters = Waiters()
    for number in range(3 * MAX_HINTS):
        waiters.add(f"peer{'x' * number}yyyy", 100.0 + number / 100)
    hints = waiters.hints(ANN, 101.0, STEP_S)
    assert len(hints) == MAX_HINTS
    assert hints[0].age_s == pytest.approx(1.0 - (3 * MAX_HINTS - 1) / 100)


def test_those_who_may_wait_in_the_order_asked_for():
    waiters = known(ann=99.0, bob=100.0)
    assert waiters.among([BOB, COE, ANN], 100.0, STEP_S) == [BOB, ANN]
    assert waiters.among([COE, ANN, BOB], 99.5 + FRESH_S, STEP_S) == [BOB]


def test_an_older_rumour_makes_nobody_older():
    waiters = known(ann=100.0)
    waiters.add(ANN, 99.0)
    assert waiters.hints(BOB, 100.0, STEP_S) == (Hint(peer=ANN, age_s=0.0),)


@pytest.mark.parametrize("since", [99.0, 101.0])
def test_a_stale_rumour_cannot_come_back(since):
    waiters = known(ann=100.0)
    waiters.settle(ANN, 101.0)
    waiters.add(ANN, since)
    assert waiters.among([ANN], 101.0, STEP_S) == []
    assert waiters.hints(BOB, 101.0, STEP_S) == ()


@pytest.mark.parametrize("now", [101.0, 103.0, 105.0, 1e6])
def test_a_stale_rumour_cannot_come_back_once_its_denial_is_forgotten(now):
    waiters = Waiters()
    waiters.settle(ANN, 101.0)
    waiters.among([], now, STEP_S)
    waiters.add(ANN, 100.9)
    assert waiters.among([ANN], now, STEP_S) == []


def test_whoever_waits_again_is_believed():
    waiters = known(ann=100.0)
    waiters.settle(ANN, 101.0)
    waiters.add(ANN, 101.1)
    assert waiters.among([ANN], 101.2, STEP_S) == [ANN]


def test_nothing_is_known_before_the_own_pace_is():
    assert known(ann=100.0).among([ANN], 100.1, 0.0) == []


def test_memory_does_not_grow_with_the_peers_ever_met():
    waiters = Waiters()
    for number in range(1000):
        peer = f"peer{'x' * (number % 7)}{'y' * (number // 7)}"
        waiters.add(peer, float(number))
        waiters.settle(peer, float(number))
        waiters.among([], float(number), STEP_S)
    assert len(waiters._news) <= FRESH_S + 1


def test_memory_is_bounded_even_within_one_step():
    waiters = Waiters()
    for number in range(3 * MAX_KNOWN):
        waiters.add(f"peer{number}", 100.0)
        waiters.settle(f"other{number}", 100.0)
    waiters.add(ANN, 100.0)
    assert len(waiters._news) == MAX_KNOWN
    assert waiters.among([ANN], 100.0, STEP_S) == [ANN]
