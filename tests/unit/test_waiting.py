"""Words on when windows open: aged, outdated by newer words, bounded."""

import pytest

from swarmnet.exchange.waiting import MAX_KNOWN, Waiters
from swarmnet.wire.messages import MAX_HINTS, Hint

ANN, BOB, COE = "peerAnnAnn", "peerBobBob", "peerCoeCoe"
TRUST_S = 3.0


def known(**opens_at):
    """All said so at 95."""
    waiters = Waiters()
    for name, at in opens_at.items():
        waiters.add({"ann": ANN, "bob": BOB, "coe": COE}[name], 95.0, at)
    return waiters


def opening(waiters, now, peers=(ANN, BOB, COE)):
    return waiters.opening(peers, now, TRUST_S)


def test_hints_carry_the_age_of_the_word_and_name_the_nearest_opening_first():
    hints = known(ann=99.0, bob=101.0, coe=104.0).hints("peerAsker", 100.5, TRUST_S)
    assert hints == tuple(
        Hint(peer=peer, age_s=5.5, opens_s=opens_s)
        for peer, opens_s in [(BOB, 6.0), (ANN, 4.0), (COE, 9.0)]
    )


def test_a_word_means_the_same_moment_after_every_hop():
    first, second, third = known(ann=104.0), Waiters(), Waiters()
    for teller, hearer, now in [(first, second, 101.0), (second, third, 102.0)]:
        for hint in teller.hints(BOB, now, TRUST_S):
            said_at = now - hint.age_s
            hearer.add(hint.peer, said_at, said_at + hint.opens_s)
    assert third.hints(BOB, 102.5, TRUST_S) == (Hint(peer=ANN, age_s=7.5, opens_s=9.0),)
    assert opening(third, 104.0 + TRUST_S + 0.1) == {}


def test_nobody_is_told_of_itself():
    assert known(ann=100.0).hints(ANN, 100.0, TRUST_S) == ()


def test_as_many_hints_as_fit_and_no_more():
    waiters = Waiters()
    for number in range(3 * MAX_HINTS):
        waiters.add(f"peer{'x' * number}yyyy", 100.0, 102.0 - number / 100)
    hints = waiters.hints(ANN, 101.0, TRUST_S)
    assert len(hints) == MAX_HINTS
    assert hints[0].opens_s == pytest.approx(2.0 - (3 * MAX_HINTS - 1) / 100)


def test_openings_to_come_and_those_just_over_in_the_order_asked_for():
    waiters = known(ann=99.0, bob=108.0)
    assert list(waiters.opening([BOB, COE, ANN], 100.0, TRUST_S).items()) == [
        (BOB, 108.0),
        (ANN, 99.0),
    ]
    assert opening(waiters, 99.1 + TRUST_S) == {BOB: 108.0}


@pytest.mark.parametrize("said_at", [94.0, 95.0])
def test_a_word_that_is_not_newer_changes_nothing(said_at):
    waiters = known(ann=100.0)
    waiters.add(ANN, said_at, 200.0)
    assert opening(waiters, 100.0) == {ANN: 100.0}


def test_a_newer_word_takes_the_place_of_the_old_one():
    waiters = known(ann=100.0)
    waiters.add(ANN, 96.0, 107.0)
    assert opening(waiters, 100.0) == {ANN: 107.0}


def test_a_rumour_cannot_undo_what_was_seen_first_hand():
    waiters = known(ann=100.0)
    waiters.settle(ANN, 101.0, 111.0)
    waiters.add(ANN, 100.9, 100.9)
    assert opening(waiters, 101.0) == {ANN: 111.0}


@pytest.mark.parametrize("now", [101.0 + TRUST_S, 120.0, 1e6])
def test_an_old_rumour_is_not_believed_once_the_newer_word_is_forgotten(now):
    waiters = Waiters()
    waiters.settle(ANN, 101.0, 101.0)
    opening(waiters, now + 0.1)
    waiters.add(ANN, 100.9, 100.9)
    assert opening(waiters, now + 0.1) == {}


def test_nothing_old_is_believed_before_the_own_pace_is_known():
    assert known(ann=100.0).opening([ANN], 100.1, 0.0) == {}


def test_memory_does_not_grow_with_the_peers_ever_met():
    waiters = Waiters()
    for number in range(1000):
        peer = f"peer{'x' * (number % 7)}{'y' * (number // 7)}"
        waiters.settle(peer, float(number), float(number))
        opening(waiters, float(number))
    assert len(waiters._words) <= TRUST_S + 1


def test_memory_is_bounded_whatever_peers_promise():
    waiters = Waiters()
    for number in range(3 * MAX_KNOWN):
        waiters.add(f"peer{number}", 100.0, 1e9)
    waiters.add(ANN, 100.0, 100.0)
    assert len(waiters._words) == MAX_KNOWN
    assert opening(waiters, 100.0) == {ANN: 100.0}
