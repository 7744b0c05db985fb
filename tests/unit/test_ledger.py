"""Decisions are made once and remembered within bounds; open questions are answered or counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmnet.exchange.ledger import MAX_PENDING, MEMORY, PATIENCE_WINDOWS, Decisions, Open, Pending

ANN, BOB = "peerAnnAnn", "peerBobBob"


def question(round_, peer=ANN, window=0, correction="c"):
    return Open(peer, round_, correction, window)


def test_a_commit_counts_once():
    ledger = Decisions()
    assert ledger.begin(ANN, 1)
    assert ledger.commit(ANN, 1)
    assert not ledger.commit(ANN, 1)
    assert ledger.known(ANN, 1) == ledger.tell(ANN, 1) == "applied"


def test_a_round_that_was_asked_for_while_open_is_never_applied():
    ledger = Decisions()
    ledger.begin(ANN, 1)
    assert ledger.tell(ANN, 1) == "dropped"
    assert not ledger.commit(ANN, 1)
    assert ledger.tell(ANN, 1) == "dropped"


def test_an_unknown_round_is_dropped_by_being_asked():
    ledger = Decisions()
    assert ledger.known(ANN, 9) is None
    assert ledger.tell(ANN, 9) == "dropped"
    assert not ledger.begin(ANN, 9)
    assert not ledger.commit(ANN, 9)


def test_rounds_of_different_peers_have_nothing_in_common():
    ledger = Decisions()
    ledger.commit(ANN, 1)
    assert ledger.known(BOB, 1) is None
    assert ledger.begin(BOB, 1)


def test_a_round_begins_once_at_a_time():
    ledger = Decisions()
    assert ledger.begin(ANN, 1)
    assert not ledger.begin(ANN, 1)
    ledger.drop(ANN, 1)
    assert not ledger.begin(ANN, 1)


def test_the_memory_is_bounded_and_forgets_the_oldest():
    ledger = Decisions()
    for round_ in range(MEMORY + 10):
        ledger.begin(ANN, round_)
        ledger.commit(ANN, round_)
    assert len(ledger._decided) == MEMORY
    assert not ledger._open
    assert ledger.known(ANN, 9) is None
    assert ledger.known(ANN, 10) == "applied"


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["begin", "commit", "drop", "tell"]), max_size=12))
def test_the_first_decision_stands_in_any_order(calls):
    ledger, decided = Decisions(), None
    for call in calls:
        answer = getattr(ledger, call)(ANN, 1)
        if call in ("commit", "drop"):
            assert answer == (decided is None)
        if decided is None and call != "begin":
            decided = "applied" if call == "commit" else "dropped"
        if call == "tell":
            assert answer == decided
        assert ledger.known(ANN, 1) == decided


def test_an_answer_resolves_a_question_once():
    pending = Pending()
    applied, dropped = question(1), question(2)
    pending.add(applied)
    pending.add(dropped)
    assert pending.resolve(applied, "applied") == "c"
    assert pending.resolve(applied, "applied") is None
    assert pending.resolve(dropped, "dropped") is None
    assert len(pending) == pending.given_up == 0


def test_questions_are_told_apart_without_looking_at_their_tensors():
    pending = Pending()
    twins = [question(1, correction=np.ones(3)) for _ in range(2)]
    for twin in twins:
        pending.add(twin)
    assert pending.resolve(twins[1], "applied") is twins[1].correction
    assert pending.of(ANN) == [twins[0]]


def test_too_many_questions_push_out_the_oldest_and_count_it():
    pending = Pending()
    for round_ in range(MAX_PENDING + 3):
        pending.add(question(round_))
    assert [item.round for item in pending.of(ANN)] == list(range(3, MAX_PENDING + 3))
    assert pending.given_up == 3


@pytest.mark.parametrize(("dead", "counted"), [(set(), 1), ({ANN}, 0), ({BOB}, 1)])
def test_an_old_question_is_dropped_and_counted_unless_the_partner_is_dead(dead, counted):
    pending = Pending()
    pending.add(question(1, window=5))
    assert pending.expire(5 + PATIENCE_WINDOWS, dead) == 0
    assert len(pending) == 1
    assert pending.expire(5 + PATIENCE_WINDOWS + 1, dead) == 1
    assert (len(pending), pending.given_up) == (0, counted)


def test_peers_are_named_once_and_sorted():
    pending = Pending()
    for peer in (BOB, ANN, BOB):
        pending.add(question(1, peer))
    assert pending.peers() == [ANN, BOB]
    assert len(pending.of(BOB)) == 2
