"""Deadlines follow what a link did before, within a floor and a ceiling."""

import pytest

from swarmnet.exchange.links import CEILING_S, FIRST_S, FLOOR_S, HISTORY, Links

ANN, BOB = "peerAnnAnn", "peerBobBob"


def links(*waits):
    seen = Links()
    for wait in waits:
        seen.observe(ANN, wait)
    return seen


def test_a_stranger_gets_the_first_deadline():
    assert links().deadline_s(ANN) == FIRST_S
    assert links(9.0, 9.0, 9.0).deadline_s(ANN) == FIRST_S
    assert links(*[3.0] * 8).deadline_s(BOB) == FIRST_S


def test_asking_for_a_deadline_remembers_nothing():
    seen = links()
    seen.deadline_s(ANN)
    assert not seen._waits


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
    assert len(seen._waits[ANN]) == HISTORY


def test_a_deadline_that_keeps_passing_grows_until_it_fits():
    seen = links(*[0.5] * HISTORY)
    deadlines = []
    for _ in range(2 * HISTORY):
        deadlines.append(seen.deadline_s(ANN))
        seen.observe(ANN, deadlines[-1])
    assert deadlines[0] == max(4 * 0.5, FLOOR_S)
    assert deadlines[-1] == CEILING_S
