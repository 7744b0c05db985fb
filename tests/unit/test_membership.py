"""The live view: counters that move keep a peer alive, nothing that is old changes anything."""

import dataclasses
import random

import pytest

from swarmnet.exchange import departed
from swarmnet.exchange.member import AHEAD_RENEWALS, HEARSAY_RENEWALS
from swarmnet.exchange.membership import FORGET_S, RENEWALS_UNTIL_DEAD, Membership, Status
from swarmnet.wire.messages import MAX_RUMOURS, Digest, Rumour, Word

ME, ANN, BOB, CAT = "12D3KooWme", "12D3KooWann", "12D3KooWbob", "12D3KooWcat"
RENEW_S = 10.0
QUIET_S = RENEWALS_UNTIL_DEAD * RENEW_S


@pytest.fixture
def view():
    return Membership(ME, RENEW_S)


def status(second, incarnation=1, state="training", **fields):
    """What a peer says of itself ``second`` seconds after it started."""
    return Status(incarnation=incarnation, counter=round(1000 * second), state=state, **fields)


def rumour(peer, second, incarnation=1):
    return Rumour(peer=peer, incarnation=incarnation, counter=round(1000 * second))


def said(mine, *rumours):
    return Digest(mine=Word(**dataclasses.asdict(mine)), rumours=rumours)


def gossip(view, now, *rumours):
    """Cat, whom we know and who lives, tells rumours."""
    view.observe(CAT, status(now), now)
    view.hear(CAT, said(status(now), *rumours), now)


def others(view, now, **options):
    return [peer for peer in view.alive(now, **options) if peer != CAT]


# ---- records ----------------------------------------------------------------------------------


def test_alive_while_the_counter_moves(view):
    for beat in range(20):
        view.observe(ANN, status(beat * RENEW_S), beat * RENEW_S)
        assert view.alive(beat * RENEW_S) == [ANN]


def test_dead_when_the_counter_stands_though_the_record_is_read_again(view):
    for beat in range(5):
        view.observe(ANN, status(7), beat * RENEW_S)
    assert view.alive(QUIET_S) == [ANN]
    assert view.alive(QUIET_S + 0.1) == []
    assert view.is_dead(ANN, QUIET_S + 0.1)


def test_a_record_read_late_is_worth_its_age(view):
    view.observe(ANN, status(0), 0.0)
    view.observe(ANN, status(25), 45.0)
    assert not view.is_dead(ANN, 25.0 + QUIET_S)
    assert view.is_dead(ANN, 25.1 + QUIET_S)


def test_the_last_record_of_the_dead_does_not_revive_them(view):
    view.observe(ANN, status(0), 0.0)
    view.observe(ANN, status(9), 50.0)
    assert view.is_dead(ANN, 50.0)


def test_a_clock_that_stood_still_costs_one_look(view):
    """The peer's computer slept for an hour: its counter lags behind by that much."""
    view.observe(ANN, status(10), 0.0)
    view.observe(ANN, status(20), 3610.0)
    assert view.is_dead(ANN, 3610.0)
    view.observe(ANN, status(30), 3620.0)
    assert view.alive(3620.0) == [ANN]


def test_a_reader_that_slept_believes_the_next_record(view):
    view.observe(ANN, status(10), 0.0)
    gossip(view, 5.0, rumour(ANN, 3615))
    assert view.news_at == 5.0
    view.observe(ANN, status(3615), 6.0)
    gossip(view, 10.0, rumour(ANN, 3619))
    assert view.ages(10.0)[-1] == pytest.approx(0.0)


# ---- rumours ----------------------------------------------------------------------------------


def test_a_rumour_keeps_alive_like_a_record(view):
    view.observe(ANN, status(0), 0.0)
    gossip(view, 25.0, rumour(ANN, 25))
    assert not view.is_dead(ANN, 25.0 + QUIET_S)
    assert view.is_dead(ANN, 25.1 + QUIET_S)


def test_a_rumour_is_worth_its_age_however_many_told_it(view):
    view.observe(ANN, status(0), 0.0)
    gossip(view, 29.0, rumour(ANN, 2))
    assert not view.is_dead(ANN, 32.0)
    assert view.is_dead(ANN, 32.1)


def test_a_rumour_too_old_to_help_asks_for_the_book(view):
    """Others hold the peer for alive: perhaps its computer slept, and its counter lags behind."""
    view.observe(ANN, status(0), 0.0)
    gossip(view, 60.0, rumour(ANN, 5))
    assert view.is_dead(ANN, 60.0)
    assert view.news_at == 60.0
    view.observe(ANN, status(4), 61.0)
    view.observe(ANN, status(14), 71.0)
    assert others(view, 71.0) == [ANN]


def test_a_rumour_of_a_stranger_waits_for_the_record(view):
    gossip(view, 1.0, rumour(ANN, 2))
    assert others(view, 1.0) == []
    assert view.news_at == 1.0


def test_a_stale_rumour_does_not_revive(view):
    view.observe(ANN, status(5), 0.0)
    for second in range(6):
        gossip(view, 40.0, rumour(ANN, second))
    assert view.is_dead(ANN, 40.0)


def test_a_stale_rumour_does_not_kill(view):
    view.observe(ANN, status(5, incarnation=2), 0.0)
    gossip(view, 1.0, rumour(ANN, 99, incarnation=1))
    view.observe(ANN, status(25, incarnation=2), 20.0)
    assert others(view, 45.0) == [ANN]


def test_only_an_own_word_begins_a_new_life(view):
    view.observe(ANN, status(5, incarnation=2), 0.0)
    view.news_at = -1.0
    gossip(view, 20.0, rumour(ANN, 0, incarnation=2**61))
    assert view.status(ANN).incarnation == 2
    assert view.news_at == 20.0
    assert view.is_dead(ANN, 31.0)
    view.observe(ANN, status(1, incarnation=3), 31.0)
    assert others(view, 31.0) == [ANN]


@pytest.mark.parametrize("ahead_s", [25.0, 1e6, 2**61 / 1000])
def test_a_counter_from_the_future_is_refused(view, ahead_s):
    view.observe(ANN, status(0), 0.0)
    gossip(view, 5.0, rumour(ANN, 5 + ahead_s))
    gossip(view, 20.0, rumour(ANN, 20))
    assert not view.is_dead(ANN, 20.0 + QUIET_S)
    assert view.is_dead(ANN, 20.1 + QUIET_S)


def test_a_small_lie_ends_with_the_next_word(view):
    view.observe(ANN, status(0), 0.0)
    gossip(view, 1.0, rumour(ANN, 1 + AHEAD_RENEWALS * RENEW_S))
    view.hear(ANN, said(status(4, state="consensus")), 4.0)
    assert view.alive(4.0, ["consensus"]) == [ANN]
    gossip(view, 9.0, rumour(ANN, 9))
    assert not view.is_dead(ANN, 9.0 + QUIET_S)


def test_a_record_is_believed_where_a_lie_ran_ahead(view):
    view.observe(ANN, status(0), 0.0)
    gossip(view, 1.0, rumour(ANN, 1 + AHEAD_RENEWALS * RENEW_S))
    view.observe(ANN, status(10, state="paused"), 10.0)
    assert view.alive(10.0, ["paused"]) == [ANN]


def test_lies_keep_the_dead_alive_for_a_while_only(view):
    view.observe(ANN, status(0), 0.0)
    until = HEARSAY_RENEWALS * RENEW_S
    for second in range(1, 300):
        gossip(view, float(second), rumour(ANN, second))
        assert (ANN in others(view, float(second))) == (second <= until)


def test_a_tombstone_is_final_for_its_incarnation(view):
    view.observe(ANN, status(1), 0.0)
    view.observe(ANN, status(2, state="left"), 1.0)
    view.observe(ANN, status(3), 2.0)
    view.hear(ANN, said(status(3)), 3.0)
    gossip(view, 3.0, rumour(ANN, 3))
    assert view.is_dead(ANN, 3.0)
    view.observe(ANN, status(0, incarnation=2), 4.0)
    assert others(view, 4.0) == [ANN]


def test_a_state_is_seen_though_its_rumour_came_first(view):
    view.observe(ANN, status(1, state="syncing"), 0.0)
    gossip(view, 1.0, rumour(ANN, 2))
    view.observe(ANN, status(2, state="training"), 2.0)
    assert ANN in view.alive(2.0, ["training"])


# ---- a peer's own voice -----------------------------------------------------------------------


def test_a_peer_speaks_for_itself(view):
    view.observe(ANN, status(1), 0.0)
    view.hear(ANN, said(status(5, state="consensus", tokens=9, step=3)), 4.0)
    assert view.alive(4.0, ["consensus"]) == [ANN]
    assert (view.status(ANN).tokens, view.status(ANN).step) == (9, 3)
    assert not view.is_dead(ANN, 4.0 + QUIET_S)


def test_a_record_older_than_the_voice_is_ignored(view):
    view.hear(ANN, said(status(5, state="consensus")), 4.0)
    view.observe(ANN, status(2, state="training"), 5.0)
    assert view.status(ANN).state == "consensus"


def test_a_frame_that_was_held_up_is_ignored(view):
    view.observe(ANN, status(5, incarnation=2), 4.0)
    view.hear(ANN, said(status(9, incarnation=1, state="left")), 5.0)
    view.hear(ANN, said(status(4, incarnation=2, state="left")), 5.0)
    assert view.alive(5.0) == [ANN]


def test_a_voice_nobody_knew_is_a_member_whose_record_is_wanted(view):
    view.hear(ANN, said(status(5)), 4.0)
    assert view.alive(4.0) == [ANN]
    assert view.news_at == 4.0


def test_a_frame_without_a_digest_clears_suspicion(view):
    view.observe(ANN, status(1), 0.0)
    view.suspect(ANN, 0.0)
    view.hear(ANN, None, 1.0)
    assert view.alive(1.0) == [ANN]


# ---- lives, clocks ----------------------------------------------------------------------------


def test_an_older_incarnation_is_ignored(view):
    view.observe(ANN, status(1, incarnation=2, state="training"), 0.0)
    view.observe(ANN, status(50, incarnation=1, state="left"), 1.0)
    assert view.alive(1.0) == [ANN]


def test_a_restart_begins_its_counter_anew(view):
    view.observe(ANN, status(50, incarnation=1), 0.0)
    view.observe(ANN, status(1, incarnation=2, state="syncing"), 35.0)
    assert view.alive(35.0, ["syncing"]) == [ANN]


def test_suspects_are_left_out_longer_each_time(view):
    view.observe(ANN, status(1), 0.0)
    pauses = []
    for _ in range(3):
        view.suspect(ANN, 0.0)
        pauses.append(next(t for t in range(100) if ANN in view.alive(float(t)) or t > QUIET_S))
    assert pauses == sorted(set(pauses))
    assert view.alive(0.0, suspects=True) == [ANN]
    view.clear(ANN)
    assert view.alive(0.0) == [ANN]
    view.suspect("12D3KooWnobody", 0.0)


def test_a_suspicion_sends_to_the_book(view):
    view.observe(ANN, status(1), 0.0)
    view.suspect(ANN, 3.0)
    assert view.news_at == 3.0


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


def test_clocks_apart_change_nothing():
    """Three peers with clocks ten minutes apart hear the same things as three with one clock."""

    def story(offsets):
        names = (ANN, BOB, CAT)
        views = {name: Membership(name, RENEW_S) for name in names}
        born = {name: 1e9 + offset for name, offset in zip(names, offsets, strict=True)}
        dice, seen = random.Random(3), []
        for second in range(200):
            alive = names if second < 90 else (ANN, BOB)
            for name in alive:
                clock = second + born[name] - 1e9 + 5000.0
                mine = status(second, incarnation=int(born[name]))
                other = dice.choice([peer for peer in names if peer != name])
                there = second + born[other] - 1e9 + 5000.0
                if second % 20 == 0:
                    views[other].observe(name, mine, there)
                if other in alive:
                    views[other].hear(name, views[name].digest(mine, clock), there)
            seen.append(
                [views[name].alive(second + born[name] - 1e9 + 5000.0) for name in (ANN, BOB)]
            )
        return seen

    assert story((0.0, 0.0, 0.0)) == story((0.0, 600.0, -600.0))
    assert story((0.0, 0.0, 0.0))[-1] == [[BOB], [ANN]]


def test_i_am_never_a_member_of_my_own_view(view):
    view.observe(ME, status(1), 0.0)
    gossip(view, 0.0, rumour(ME, 99, incarnation=7))
    assert others(view, 0.0) == []
    assert view.status(ME) is None


def test_alive_filters_states_and_sorts(view):
    view.observe(BOB, status(1, state="paused"), 0.0)
    view.observe(ANN, status(1, state="training"), 0.0)
    assert view.alive(0.0) == [ANN, BOB]
    assert view.alive(0.0, ["paused"]) == [BOB]


def test_remembered_answers_are_those_of_a_fresh_look():
    """Whatever happens in whatever order, asking twice is asking once."""
    dice = random.Random(11)
    view = Membership(ME, RENEW_S)
    names = [f"12D3KooWpeer{letter}" for letter in "ABCDEFGH"]
    states = ("training", "consensus", "left")
    now = 0.0
    for _ in range(2000):
        now += dice.choice([0.0, 0.3, 4.0])
        peer = dice.choice(names)
        life, state = dice.choice([1, 1, 2, 3]), dice.choices(states, [8, 2, 1])[0]
        mine = status(now - dice.choice([0.0, 5.0, 40.0]) + 50, life, state)
        match dice.randrange(5):
            case 0:
                view.observe(peer, mine, now)
            case 1:
                view.hear(peer, said(mine), now)
            case 2:
                view.suspect(peer, now)
            case 3:
                gossip(view, now, rumour(peer, now + 50, life))
            case 4:
                view.clear(peer)
        asked = [view.alive(now, suspects=flag) for flag in (True, False)]
        view._answers.clear()
        assert asked == [view.alive(now, suspects=flag) for flag in (True, False)]


# ---- digests ----------------------------------------------------------------------------------


def test_the_digest_tells_my_word_and_the_newest_counters_and_is_bounded(view):
    names = [f"12D3KooWpeer{chr(ord('A') + index // 8)}{index % 8 + 1}" for index in range(200)]
    for index, name in enumerate(names):
        view.observe(name, status(0), index * 0.1)
    mine = status(20, tokens=3)
    told = view.digest(mine, 20.0)
    assert told.mine == Word(**dataclasses.asdict(mine))
    assert [r.peer for r in told.rumours] == names[:-MAX_RUMOURS:-1]
    assert told.rumours[0] == rumour(names[-1], 0)


def test_news_is_told_by_its_own_age_not_by_when_it_came(view):
    for index in range(MAX_RUMOURS):
        view.observe(f"12D3KooWpeer{chr(ord('A') + index)}", status(0), 0.0)
    gossip(view, 20.0, rumour("12D3KooWpeerB", 19), rumour("12D3KooWpeerC", 7))
    told = [r.peer for r in view.digest(status(1), 20.0).rumours]
    assert told[:3] == [CAT, "12D3KooWpeerB", "12D3KooWpeerC"]


def test_who_was_met_first_is_told_again_when_it_moves(view):
    names = [f"12D3KooWpeer{chr(ord('A') + index // 8)}{index % 8 + 1}" for index in range(200)]
    for name in names:
        view.observe(name, status(0), 0.0)
    gossip(view, 5.0, rumour(names[0], 4))
    assert rumour(names[0], 4) in view.digest(status(1), 5.0).rumours


def test_the_dead_are_not_told_of(view):
    view.observe(ANN, status(1), 0.0)
    view.observe(BOB, status(2, state="left"), 0.0)
    assert view.digest(status(1), QUIET_S + 1).rumours == ()
    assert [r.peer for r in view.digest(status(1), 1.0).rumours] == [ANN]


# ---- work -------------------------------------------------------------------------------------


def test_tokens_are_extrapolated_for_those_who_train_and_live(view):
    view.observe(ANN, status(1, tokens=100, rate=10.0), 0.0)
    view.observe(BOB, status(1, tokens=50, rate=10.0, state="paused"), 0.0)
    assert view.swarm_tokens(7, 0.0) == 157
    assert view.swarm_tokens(7, 5.0) == 207
    assert view.swarm_tokens(7, QUIET_S + 1) == 157


def test_rumours_tell_how_long_the_dead_have_worked(view):
    view.observe(ANN, status(0, tokens=100, rate=10.0), 0.0)
    gossip(view, 20.0, rumour(ANN, 20))
    assert view.swarm_tokens(0, 100.0) == 300


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


def test_a_pipeline_has_read_no_less_than_its_furthest_stage_holds(view):
    assert view.committed() == 0
    view.observe(ANN, status(1, committed=70), 0.0)
    view.observe(BOB, status(1, committed=90), 0.0)
    view.observe(BOB, status(1, incarnation=2, committed=80), 1.0)
    assert view.committed() == 90
    assert view.swarm_tokens(5, 1.0) == 5


# ---- the long dead ----------------------------------------------------------------------------


def forget(view, *peers, **fields):
    """All of ``peers`` live at 0 and are forgotten later; returns a time after that."""
    for peer in peers:
        view.observe(peer, status(5, incarnation=2, **fields), 0.0)
    later = FORGET_S + 1.0
    view.observe(BOB, status(0), later)
    return later


def test_the_long_dead_are_forgotten_but_not_their_work(view):
    later = forget(view, ANN, tokens=100, elapsed_s=60.0, committed=90)
    assert view.status(ANN) is None
    assert view.committed() == 90
    assert view.swarm_tokens(7, later) == 107
    assert view.swarm_elapsed_s(0.0, later) == 60.0


def test_what_was_known_of_the_forgotten_does_not_revive_them(view):
    later = forget(view, ANN, tokens=100)
    view.news_at = -1.0
    view.observe(ANN, status(5, incarnation=2, tokens=100), later)
    gossip(view, later, rumour(ANN, 5, incarnation=2))
    gossip(view, later, rumour(ANN, 900, incarnation=1))
    assert others(view, later) == [BOB]
    assert view.status(ANN) is None
    assert view.news_at == -1.0


def test_who_comes_back_is_counted_once(view):
    later = forget(view, ANN, tokens=100)
    view.observe(ANN, status(0, incarnation=3, tokens=40), later)
    assert view.swarm_tokens(0, later) == 100
    view.observe(ANN, status(1, incarnation=3, tokens=120), later + 1)
    assert view.swarm_tokens(0, later + 1) == 120


def test_memory_of_the_dead_is_bounded(view, monkeypatch):
    monkeypatch.setattr(departed, "MAX_LINES", 3)
    names = [f"12D3KooWpeer{letter}" for letter in "ABCDEFGH"]
    later = forget(view, *names, tokens=10)
    assert view.swarm_tokens(0, later) == 80
    assert len(view._departed._lines) == 3
    assert set(view._members) == set(view._recent) == {BOB}


def test_statuses_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        status(1).counter = 2
