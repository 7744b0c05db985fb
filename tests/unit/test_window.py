"""A peer's own pace: when it offers, to whom, how long it waits, when it goes alone."""

import random

import pytest

from swarmnet.exchange import window as decisions
from swarmnet.exchange.window import (
    GAP,
    HISTORY,
    HOLD,
    LOOKAHEAD,
    MAX_RETRY_S,
    PAUSE_STEPS,
    RETRY_BUSY_S,
    SOON,
    TRUST,
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


@pytest.fixture(autouse=True)
def at_once(monkeypatch, request):
    """Strangers are asked as soon as the window is ripe, except where the wait is the matter."""
    if "patiently" not in request.fixturenames:
        monkeypatch.setattr(decisions, "HOLD", 0.0)


@pytest.fixture
def patiently():
    """With the wait before the first stranger."""


def no(retry_s=1.0, reason="early", hints=()):
    return Decline(reason=reason, retry_s=retry_s, hints=tuple(hints))


def window(h=4, begin_at=0.0, matching="random_pairs", seed=3):
    cadence = choice("cadence", "every_h", h=h, begin_at=begin_at)
    return Window(ME, cadence, choice("matching", matching), random.Random(seed))


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


@pytest.mark.usefixtures("patiently")
def test_a_ripe_peer_lets_itself_be_called_for_a_while_before_it_asks_a_stranger():
    waits = set()
    for seed in range(20):
        pace = stepped(8, h=8, seed=seed)
        decision = pace.next(OTHERS, 8.0)
        assert isinstance(decision, Wait)
        assert 8.0 < decision.until < 8.0 + HOLD * 4.0
        assert isinstance(pace.next(OTHERS, decision.until), OfferTo)
        waits.add(decision.until)
    assert max(waits) - min(waits) > HOLD * 4.0 / 2


@pytest.mark.usefixtures("patiently")
def test_who_is_known_to_be_free_is_called_without_a_wait():
    pace = stepped(8, h=8)
    pace.called(OTHERS[1], 8.0)
    assert pace.next(OTHERS, 8.0) == OfferTo(OTHERS[1])


def test_offers_to_everybody_once_before_it_asks_again():
    pace = stepped(8, h=8)
    asked = []
    for at in (8.0, 9.0, 10.0):
        decision = pace.next(OTHERS, at)
        assert isinstance(decision, OfferTo)
        asked.append(decision.peer)
        pace.declined(decision.peer, no(5.0), at)
    assert sorted(asked) == OTHERS
    assert pace.next(OTHERS, 10.0) == Wait(13.0)
    assert pace.next(OTHERS, 13.0) == OfferTo(asked[0])


def test_strangers_are_asked_one_after_the_other():
    pace = stepped(8, h=8)
    first = pace.next(OTHERS, 8.0)
    pace.declined(first.peer, no(100.0), 8.0)
    assert pace.next(OTHERS, 8.5) == Wait(8.0 + GAP * 4.0)
    assert pace.next(OTHERS, 8.0 + GAP * 4.0).peer != first.peer


def test_an_opening_that_is_near_is_waited_for():
    pace = stepped(8, h=8)
    first = pace.next(OTHERS, 8.0)
    near = 9.0 + SOON * 4.0 - 0.1
    pace.declined(first.peer, no(near - 8.0), 8.0)
    assert pace.next(OTHERS, 9.0) == Wait(near)
    assert pace.next(OTHERS, near) == first


def test_an_opening_that_is_far_is_not_waited_for():
    pace = stepped(8, h=8)
    first = pace.next(OTHERS, 8.0)
    pace.declined(first.peer, no(1.0 + SOON * 4.0 + 0.1), 8.0)
    assert pace.next(OTHERS, 9.0).peer != first.peer


def test_who_waits_is_called_before_strangers_and_so_is_whom_it_names():
    pace = stepped(4)
    pace.called(OTHERS[2], 4.0)
    assert pace.next(OTHERS, 4.0) == OfferTo(OTHERS[2])
    pace.declined(OTHERS[2], no(hints=[Hint(peer=OTHERS[0], age_s=0.1)]), 4.0)
    pace.heard([Hint(peer=OTHERS[0], age_s=0.1)], 4.0)
    assert pace.next(OTHERS, 4.0) == Wait(4.0 + PAUSE_STEPS)
    assert pace.next(OTHERS, 4.0 + PAUSE_STEPS) == OfferTo(OTHERS[0])


def test_a_peer_is_called_when_its_window_has_opened_by_its_own_word():
    pace = stepped(8, h=8)
    pace.heard([Hint(peer=OTHERS[1], age_s=2.0, opens_s=3.0)], 8.0)
    assert pace.next(OTHERS, 8.0) == Wait(9.0)
    assert pace.next(OTHERS, 9.0) == OfferTo(OTHERS[1])


def test_who_opened_long_ago_has_met_somebody_and_counts_as_a_stranger():
    pace = stepped(8, h=8)
    order = window(h=8)._matching.candidates(ME, OTHERS, [], random.Random(3))
    pace.heard([Hint(peer=order[-1], age_s=TRUST * 4.0 + 0.1)], 8.0)
    assert pace.next(OTHERS, 8.0) == OfferTo(order[0])


def test_who_opened_last_is_the_surest():
    pace = stepped(8, h=8)
    ages = dict(zip(OTHERS, (0.3, 0.1, 0.2), strict=True))
    pace.heard([Hint(peer=peer, age_s=age) for peer, age in ages.items()], 8.0)
    assert pace.next(OTHERS, 8.0) == OfferTo(OTHERS[1])


def test_whoever_is_being_called_is_not_named_as_free():
    pace = stepped(4)
    pace.called(OTHERS[2], 4.0)
    assert pace.hints(OTHERS[0], 4.0) == (Hint(peer=OTHERS[2], age_s=0.0),)
    pace.next(OTHERS, 4.0)
    assert pace.hints(OTHERS[0], 4.0) == ()


def test_hints_of_myself_or_of_the_dead_call_nobody():
    pace = stepped(8, h=8)
    first = pace.next(OTHERS, 8.0).peer
    pace.declined(first, no(100.0), 8.0)
    pace.heard([Hint(peer=ME, age_s=0.0), Hint(peer="peerNobody", age_s=0.0)], 8.0)
    assert isinstance(pace.next(OTHERS, 8.0), Wait)
    assert ME not in [hint.peer for hint in pace.hints(first, 8.0)]


def test_news_of_one_peer_never_makes_me_call_it_twice_before_its_time():
    """Two peers that are busy with each other's friends would call each other without end."""
    pace = stepped(4)
    peer = pace.next(OTHERS[:1], 4.0).peer
    pace.declined(peer, no(5.0, "busy"), 4.0)
    for ahead in (0.1, 0.2, 0.3):
        pace.called(peer, 4.0 + ahead)
        assert pace.next(OTHERS[:1], 4.0 + ahead) == Wait(9.0)


def test_a_partner_opens_again_when_i_do_whatever_was_heard_before():
    pace = stepped(4)
    pace.called(OTHERS[0], 4.2)
    pace.over(4, OTHERS[0], 4.3)
    pace.heard([Hint(peer=OTHERS[0], age_s=0.05)], 4.3)
    assert pace.hints(OTHERS[1], 4.3) == (Hint(peer=OTHERS[0], age_s=0.0, opens_s=2.0),)


@pytest.mark.parametrize(("said", "waits"), [(0.0, RETRY_BUSY_S), (1.5, 1.5), (1e9, MAX_RETRY_S)])
def test_a_partners_retry_time_is_taken_within_bounds(said, waits):
    pace = stepped(4)
    pace.next(OTHERS[:1], 4.0)
    pace.declined(OTHERS[0], no(said), 4.0)
    again = 4.0 + waits
    assert pace.next(OTHERS[:1], 4.0) == Wait(again)
    assert pace.next(OTHERS[:1], max(again, 4.0 + PAUSE_STEPS)) == OfferTo(OTHERS[0])


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
        pace.declined(peer, no(100.0), float(h))
    for step in range(h, h + patience):
        pace.boundary(step, 0.0, float(step))
        assert isinstance(pace.next(OTHERS, float(h)), Wait)
    pace.boundary(h + patience, 0.0, 0.0)
    assert isinstance(pace.next(OTHERS, float(h)), GoSolo)


def test_patience_is_twice_as_long_while_somebody_is_about_to_open():
    pace = stepped(8, h=8)
    solo_at = []
    for step in range(8, 20):
        at = float(step)
        pace.boundary(step, 0.0, at)
        for peer in OTHERS:
            pace.declined(peer, no(0.5), at)
        if isinstance(pace.next(OTHERS, at), GoSolo):
            solo_at.append(step)
    assert solo_at[0] == 8 + 2 * 4


def test_a_peer_that_puts_me_off_for_ever_does_not_keep_me_from_going_alone():
    pace = stepped(8, h=8)
    calls, now = 0, 8.0
    while not isinstance(decision := pace.next(OTHERS[:1], now), GoSolo):
        if isinstance(decision, OfferTo):
            calls += 1
            pace.declined(decision.peer, no(0.0, "busy"), now)
        else:
            now = decision.until
        pace.boundary(int(now), 0.0, float(int(now)))
    assert now <= 8.0 + 2 * 4.0 + 0.1
    assert calls <= 2 * 4.0 / RETRY_BUSY_S + 1


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
    pace.declined(OTHERS[0], no(5.0), 4.0)
    pace.over(4, None, 4.0)
    pace.boundary(8, 0.0, 8.0)
    pace.called(OTHERS[0], 8.0)
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
    for step in range(8, 13):
        pace.boundary(step, 0.0, float(step))
        decision = pace.next(OTHERS, float(step))
        if isinstance(decision, OfferTo):
            order.append(decision.peer)
            pace.declined(decision.peer, no(100.0), float(step))
    assert len(order) > 1
    assert OTHERS[1] not in order[:-1]


def test_two_that_met_do_not_wait_for_each_other_again():
    pace = stepped(4)
    pace.over(4, OTHERS[0], 4.0)
    pace.boundary(8, 0.0, 8.0)
    pace.called(OTHERS[0], 8.0)
    assert pace.next(OTHERS, 8.0) != OfferTo(OTHERS[0])
    assert pace.next(OTHERS[:1], 8.0) == OfferTo(OTHERS[0])


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
    assert pace.opens_in(3.0, busy=False) == pytest.approx(float(LOOKAHEAD))


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
