"""A peer's own pace: when it offers, to whom, how long it waits, when it goes alone."""

import random

import pytest

from swarmnet.exchange.window import (
    HISTORY,
    MAX_RETRY_S,
    RETRY_BUSY_S,
    GoSolo,
    OfferTo,
    Wait,
    Window,
    refuse,
)
from swarmnet.registry import find
from swarmnet.wire.messages import Decline, Hint

ME = "peerMeMeMe"
OTHERS = ["peerAnnAnn", "peerBobBob", "peerCoeCoe"]


def choice(folder, name, **options):
    chosen = find(folder, name)
    return chosen(chosen.Config(**options))


def no(retry_s=1.0, reason="early", waiting=()):
    return Decline(reason=reason, retry_s=retry_s, waiting=tuple(waiting))


def window(h=4, begin_at=0.0, matching="random_pairs"):
    cadence = choice("cadence", "every_h", h=h, begin_at=begin_at)
    return Window(ME, cadence, choice("matching", matching), random.Random(3))


def stepped(to, **options):
    pace = window(**options)
    for step in range(to + 1):
        pace.boundary(step, 0.0, float(step))
    return pace


def test_waits_until_ripe_and_accepts_from_half_way():
    pace = window(h=4)
    seen = []
    for step in range(5):
        pace.boundary(step, 0.0, float(step))
        seen.append((pace.willing, pace.ripe))
    assert seen == [(False, False)] * 2 + [(True, False)] * 2 + [(True, True)]


def test_offers_to_everybody_once_before_it_asks_again():
    pace = stepped(8, h=8)
    asked = []
    for step in (8, 9, 10):
        pace.boundary(step, 0.0, float(step))
        decision = pace.next(OTHERS, float(step))
        assert isinstance(decision, OfferTo)
        asked.append(decision.peer)
        pace.declined(decision.peer, no(5.0 - 0.25), float(step))
    assert sorted(asked) == OTHERS
    assert pace.next(OTHERS, 10.0) == Wait(13.0)
    assert pace.next(OTHERS, 13.0) == OfferTo(asked[0])


def test_one_stranger_per_step():
    pace = stepped(8, h=8)
    first = pace.next(OTHERS, 8.0)
    pace.declined(first.peer, no(100.0), 8.0)
    assert isinstance(pace.next(OTHERS, 8.5), Wait)
    pace.boundary(9, 0.0, 9.0)
    assert pace.next(OTHERS, 9.0).peer != first.peer


def test_a_stranger_that_died_after_its_answer_does_not_count():
    pace = stepped(4)
    first = pace.next(OTHERS, 4.0)
    pace.declined(first.peer, no(), 4.0)
    rest = [peer for peer in OTHERS if peer != first.peer]
    assert pace.next(rest, 4.0).peer in rest


def test_who_waits_is_called_before_strangers_and_beside_them():
    pace = stepped(4)
    pace.called(OTHERS[2], 4.0)
    assert pace.next(OTHERS, 4.0) == OfferTo(OTHERS[2])
    pace.declined(OTHERS[2], no(waiting=[Hint(peer=OTHERS[0], age_s=0.1)]), 4.0)
    assert pace.next(OTHERS, 4.0) == OfferTo(OTHERS[0])


def test_whoever_is_being_called_is_named_to_nobody():
    pace = stepped(4)
    pace.called(OTHERS[2], 4.0)
    assert [hint.peer for hint in pace.hints(OTHERS[0], 4.0)] == [OTHERS[2]]
    pace.next(OTHERS, 4.0)
    assert pace.hints(OTHERS[0], 4.0) == ()


def test_hints_of_myself_or_of_the_dead_call_nobody():
    pace = stepped(4)
    first = pace.next(OTHERS, 4.0).peer
    hints = [Hint(peer=ME, age_s=0.0), Hint(peer="peerNobody", age_s=0.0)]
    pace.declined(first, no(waiting=hints), 4.0)
    assert isinstance(pace.next(OTHERS, 4.0), Wait)
    assert ME not in [hint.peer for hint in pace.hints(first, 4.0)]


def test_news_of_one_peer_never_makes_me_call_it_twice_before_its_time():
    """Two peers that are busy with each other's friends would call each other without end."""
    pace = stepped(4)
    peer = pace.next(OTHERS[:1], 4.0).peer
    pace.declined(peer, no(5.0, "busy"), 4.0)
    for ahead in (0.1, 0.2, 0.3):
        pace.called(peer, 4.0 + ahead)
        assert pace.next(OTHERS[:1], 4.0 + ahead) == Wait(9.25)


def test_a_partner_waits_no_more_whatever_was_heard_during_the_last_step():
    pace = stepped(4)
    pace.called(OTHERS[0], 4.2)
    pace.over(4, OTHERS[0], 4.3)
    assert pace.hints(OTHERS[1], 4.3) == ()


@pytest.mark.parametrize(("said", "waits"), [(0.0, RETRY_BUSY_S), (1.5, 1.5), (1e9, MAX_RETRY_S)])
def test_a_partners_retry_time_is_taken_within_bounds(said, waits):
    pace = stepped(4)
    pace.next(OTHERS[:1], 4.0)
    pace.declined(OTHERS[0], no(said), 4.0)
    again = 4.0 + waits + 0.25  # a quarter of a step longer: it is to call first
    assert pace.next(OTHERS[:1], 4.0) == Wait(again)
    assert pace.next(OTHERS[:1], again) == OfferTo(OTHERS[0])


def test_nobody_there_means_solo_at_once():
    assert isinstance(stepped(4).next([], 4.0), GoSolo)
    assert isinstance(stepped(4, matching="solo").next(OTHERS, 4.0), GoSolo)


def test_everybody_lost_means_solo_at_once():
    pace = stepped(4)
    pace.next(OTHERS, 4.0)
    for peer in OTHERS:
        pace.unreachable(peer)
    assert isinstance(pace.next(OTHERS, 4.0), GoSolo)
    pace.unreachable("peerNobody")


@pytest.mark.parametrize(("h", "patience"), [(1, 1), (4, 2), (20, 10)])
def test_patience_is_half_of_the_window_and_at_least_a_step(h, patience):
    pace = stepped(h, h=h)
    for peer in OTHERS:
        pace.next(OTHERS, float(h))
        pace.declined(peer, no(100.0), float(h))
    for step in range(h, h + patience):
        pace.boundary(step, 0.0, float(step))
        assert isinstance(pace.next(OTHERS, float(h)), Wait)
    pace.boundary(h + patience, 0.0, 0.0)
    assert isinstance(pace.next(OTHERS, float(h)), GoSolo)


def test_an_untried_peer_is_tried_even_out_of_patience():
    pace = stepped(4)
    first = pace.next(OTHERS, 4.0)
    pace.declined(first.peer, no(100.0), 4.0)
    pace.boundary(40, 0.0, 40.0)
    assert isinstance(pace.next(OTHERS, 40.0), OfferTo)


def test_a_dead_peer_is_passed_over():
    pace = stepped(4)
    first = pace.next(OTHERS, 4.0)
    rest = [peer for peer in OTHERS if peer != first.peer]
    assert pace.next(rest, 4.0).peer in rest


def test_the_next_window_begins_with_the_snapshot():
    pace = stepped(6, h=4)
    pace.next(OTHERS, 6.0)
    pace.over(5, OTHERS[0], 6.0)
    assert (pace.origin, pace.number, list(pace.history)) == (5, 1, OTHERS[:1])
    assert not pace.willing
    pace.boundary(9, 0.0, 9.0)
    assert pace.ripe


def test_going_alone_without_a_snapshot_keeps_the_pace():
    pace = stepped(4, h=4)
    pace.next([], 4.0)
    pace.boundary(6, 0.0, 6.0)
    pace.over(None, None, 6.0)
    assert pace.origin == 4
    assert not pace.history


def test_declines_are_forgotten_with_the_window():
    pace = stepped(4)
    pace.next(OTHERS[:1], 4.0)
    pace.declined(OTHERS[0], no(100.0), 4.0)
    pace.over(4, None, 4.0)
    pace.boundary(8, 0.0, 8.0)
    assert pace.next(OTHERS[:1], 8.0) == OfferTo(OTHERS[0])


def test_history_is_bounded():
    pace = window()
    for number in range(3 * HISTORY):
        pace.over(number, OTHERS[number % 3], float(number))
    assert len(pace.history) == HISTORY


def test_recent_partners_come_last():
    pace = stepped(4)
    pace.over(0, OTHERS[1], 4.0)
    order = []
    for step in (8, 9, 10):
        pace.boundary(step, 0.0, float(step))
        peer = pace.next(OTHERS, float(step)).peer
        order.append(peer)
        pace.declined(peer, no(100.0), float(step))
    assert order[-1] == OTHERS[1]


def test_opens_in_follows_the_own_pace():
    pace = window(h=10)
    for step in range(3):
        pace.boundary(step, 0.0, 100.0 + 2.0 * step)
    assert pace.opens_in(104.0, busy=False) == pytest.approx(3 * 2.0)
    assert pace.opens_in(105.0, busy=False) == pytest.approx(3 * 2.0 - 1.0)
    assert pace.opens_in(1000.0, busy=False) == 0.0


def test_while_busy_it_opens_half_a_window_from_now():
    assert stepped(4, h=4).opens_in(4.0, busy=True) == pytest.approx(2.0)


def test_opens_in_is_bounded_when_no_window_opens():
    pace = stepped(3, h=4, begin_at=0.5)
    assert pace.opens_in(3.0, busy=False) == pytest.approx(64.0)


def test_a_newcomer_is_ripe_at_once():
    pace = window(h=20)
    pace.ripen(500, 0.5)
    pace.boundary(500, 0.5, 0.0)
    assert pace.ripe
    assert isinstance(pace.next(OTHERS, 0.0), OfferTo)


def test_the_cadence_hears_of_the_own_pace():
    pace = Window(
        ME, choice("cadence", "by_rate", round_s=6.0), choice("matching", "solo"), random.Random(3)
    )
    for step in range(3):
        pace.boundary(step, 0.0, 100.0 + 2.0 * step)
    assert [pace.welcome_at(step, 0.0) for step in range(4)] == [False, False, True, True]
    assert pace.willing
    assert not pace.ripe
    pace.boundary(3, 0.0, 106.0)
    assert pace.ripe
    pace.over(3, OTHERS[0], 106.0)
    assert pace.opens_in(106.0, busy=False) == pytest.approx(4.0)


def test_a_newcomer_whose_rate_is_not_known_yet_stays_ripe_when_it_is():
    pace = Window(
        ME, choice("cadence", "by_rate"), choice("matching", "random_pairs"), random.Random(3)
    )
    pace.ripen(500, 0.5)
    for step in range(500, 504):
        pace.boundary(step, 0.5, float(step))
        assert pace.ripe


def test_a_newcomer_to_a_run_that_does_not_meet_yet_waits():
    pace = window(h=20, begin_at=0.1)
    pace.ripen(500, 0.09)
    assert pace.origin == 0


@pytest.mark.parametrize(
    ("steps", "busy", "has_snapshot", "reason"),
    [
        (4, False, True, None),
        (2, False, True, None),
        (1, False, True, "early"),
        (4, False, False, "early"),
        (4, True, True, "busy"),
        (0, True, False, "busy"),
    ],
)
def test_refusals(steps, busy, has_snapshot, reason):
    assert refuse(stepped(steps), busy=busy, has_snapshot=has_snapshot) == reason
