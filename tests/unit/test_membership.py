"""The live view: counters that move keep a peer alive, nothing that is old changes anything."""

import dataclasses

import pytest

from swarmnet.exchange.membership import RENEWALS_UNTIL_DEAD, Membership, Status
from swarmnet.wire.messages import MAX_RUMOURS, Rumour

ME, ANN, BOB = "12D3KooWme", "12D3KooWann", "12D3KooWbob"
RENEW_S = 10.0
QUIET_S = RENEWALS_UNTIL_DEAD * RENEW_S


@pytest.fixture
def view():
    return Membership(ME, RENEW_S)


def status(counter, incarnation=1, state="training", **fields):
    return Status(incarnation=incarnation, counter=counter, state=state, **fields)


def rumour(peer, counter, incarnation=1, tokens=0, elapsed_s=0.0):
    return Rumour(
        peer=peer, incarnation=incarnation, counter=counter, tokens=tokens, elapsed_s=elapsed_s
    )


def test_alive_while_the_counter_moves(view):
    for beat in range(20):
        view.observe(ANN, status(beat), beat * RENEW_S)
        assert view.alive(beat * RENEW_S) == [ANN]


def test_dead_when_the_counter_stands_though_the_record_is_read_again(view):
    for beat in range(5):
        view.observe(ANN, status(7), beat * RENEW_S)
    assert view.alive(QUIET_S) == [ANN]
    assert view.alive(QUIET_S + 0.1) == []
    assert view.is_dead(ANN, QUIET_S + 0.1)


def test_a_rumour_keeps_alive_like_a_record(view):
    view.observe(ANN, status(1), 0.0)
    view.hear([rumour(ANN, 2)], 25.0)
    assert not view.is_dead(ANN, 25.0 + QUIET_S)


def test_a_rumour_of_a_stranger_waits_for_the_record(view):
    view.hear([rumour(ANN, 2)], 0.0)
    assert view.alive(0.0) == []


def test_a_stale_rumour_does_not_revive(view):
    view.observe(ANN, status(5), 0.0)
    for counter in range(6):
        view.hear([rumour(ANN, counter)], 40.0)
    assert view.is_dead(ANN, 40.0)


def test_a_stale_rumour_does_not_kill(view):
    view.observe(ANN, status(5, incarnation=2), 0.0)
    view.hear([rumour(ANN, 99, incarnation=1)], 1.0)
    view.observe(ANN, status(6, incarnation=2), 20.0)
    assert view.alive(45.0) == [ANN]


def test_an_older_incarnation_is_ignored(view):
    view.observe(ANN, status(1, incarnation=2, state="training"), 0.0)
    view.observe(ANN, status(50, incarnation=1, state="left"), 1.0)
    assert view.alive(1.0) == [ANN]


def test_a_restart_begins_its_counter_anew(view):
    view.observe(ANN, status(50, incarnation=1), 0.0)
    view.observe(ANN, status(1, incarnation=2, state="syncing"), 35.0)
    assert view.alive(35.0, ["syncing"]) == [ANN]


def test_a_state_is_seen_though_its_rumour_came_first(view):
    view.observe(ANN, status(1, state="syncing"), 0.0)
    view.hear([rumour(ANN, 2)], 1.0)
    view.observe(ANN, status(2, state="training"), 2.0)
    assert view.alive(2.0, ["training"]) == [ANN]


def test_a_tombstone_is_final_for_its_incarnation(view):
    view.observe(ANN, status(1), 0.0)
    view.observe(ANN, status(2, state="left"), 1.0)
    view.observe(ANN, status(1), 2.0)
    view.hear([rumour(ANN, 3)], 3.0)
    assert view.is_dead(ANN, 3.0)
    view.observe(ANN, status(1, incarnation=2), 4.0)
    assert view.alive(4.0) == [ANN]


def test_suspects_are_left_out_longer_each_time(view):
    view.observe(ANN, status(1), 0.0)
    pauses = []
    for _ in range(3):
        view.suspect(ANN, 0.0)
        pauses.append(next(t for t in range(100) if ANN in view.alive(float(t)) or t > QUIET_S))
    assert pauses == sorted(set(pauses))
    view.clear(ANN)
    assert view.alive(0.0) == [ANN]
    view.suspect("12D3KooWnobody", 0.0)


def test_a_reborn_peer_is_no_suspect(view):
    view.observe(ANN, status(1), 0.0)
    view.suspect(ANN, 0.0)
    view.observe(ANN, status(1, incarnation=2), 0.5)
    assert view.alive(0.5) == [ANN]


def test_only_differences_on_the_readers_clock_count():
    views = {}
    for offset in (0.0, 1e6, 1e9):
        view = views[offset] = Membership(ME, RENEW_S)
        view.observe(ANN, status(1), offset)
        view.observe(BOB, status(1, tokens=5, rate=2.0), offset + 20.0)
    answers = {
        (tuple(view.alive(offset + 35.0)), view.swarm_tokens(0, offset + 35.0))
        for offset, view in views.items()
    }
    assert answers == {((BOB,), 35)}


def test_i_am_never_a_member_of_my_own_view(view):
    view.observe(ME, status(1), 0.0)
    assert view.alive(0.0) == []
    assert view.status(ME) is None


def test_alive_filters_states_and_sorts(view):
    view.observe(BOB, status(1, state="paused"), 0.0)
    view.observe(ANN, status(1, state="training"), 0.0)
    assert view.alive(0.0) == [ANN, BOB]
    assert view.alive(0.0, ["paused"]) == [BOB]


def test_the_digest_tells_me_first_then_the_freshest_and_is_bounded(view):
    names = [f"12D3KooWpeer{chr(ord('A') + index // 8)}{index % 8 + 1}" for index in range(34)]
    for index, name in enumerate(names):
        view.observe(name, status(index), index * 0.1)
    told = view.digest(status(9, tokens=3), 5.0)
    assert len(told) == MAX_RUMOURS
    assert told[0] == rumour(ME, 9, tokens=3)
    assert [r.peer for r in told[1:]] == names[:-MAX_RUMOURS:-1]


def test_the_dead_are_not_told_of(view):
    view.observe(ANN, status(1), 0.0)
    view.observe(BOB, status(2, state="left"), 0.0)
    assert [r.peer for r in view.digest(status(1), QUIET_S + 1)] == [ME]
    assert [r.peer for r in view.digest(status(1), 1.0)] == [ME, ANN]


def test_tokens_are_extrapolated_for_those_who_train_and_live(view):
    view.observe(ANN, status(1, tokens=100, rate=10.0), 0.0)
    view.observe(BOB, status(1, tokens=50, rate=10.0, state="paused"), 0.0)
    assert view.swarm_tokens(7, 0.0) == 157
    assert view.swarm_tokens(7, 5.0) == 207
    assert view.swarm_tokens(7, QUIET_S + 1) == 157


def test_work_never_shrinks_over_a_restart(view):
    view.observe(ANN, status(5, tokens=100, elapsed_s=60.0), 0.0)
    view.observe(ANN, status(1, incarnation=2, tokens=40, elapsed_s=30.0), 1.0)
    assert view.status(ANN).tokens == 100
    assert view.swarm_elapsed_s(0.0, 1.0) == 60.0


def test_elapsed_is_that_of_whoever_trained_longest(view):
    view.observe(ANN, status(1, elapsed_s=60.0), 0.0)
    view.observe(BOB, status(1, elapsed_s=0.0), 0.0)
    assert view.swarm_elapsed_s(10.0, 0.0) == 60.0
    assert view.swarm_elapsed_s(10.0, 5.0) == 65.0
    assert view.swarm_elapsed_s(100.0, 5.0) == 100.0


def test_statuses_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        status(1).counter = 2
