"""Where a starting worker begins: own checkpoint, donor, seed, or not yet."""

from __future__ import annotations

import itertools

import pytest

from peers.firststate import First, Sight, choose

STALE, PATIENCE = 300.0, 120.0


def first(own=None, healthy=None, healing=None, remembered=None, waited=0.0):
    return choose(Sight(own, healthy, healing, remembered), waited, STALE, PATIENCE)


def test_a_run_that_nobody_has_begun_begins_from_the_seed():
    assert first() is First.SEED


def test_a_newcomer_takes_what_a_healthy_peer_gives():
    assert first(healthy=50.0, remembered=900.0) is First.DONOR


def test_a_restart_goes_on_from_its_own_checkpoint():
    assert first(own=100.0) is First.OWN
    assert first(own=100.0, healthy=130.0, remembered=130.0) is First.OWN


def test_a_checkpoint_that_is_far_behind_gives_way_to_a_healthy_peer():
    assert first(own=100.0, healthy=500.0) is First.DONOR


def test_after_a_power_cut_the_furthest_begin_and_the_others_wait_for_them():
    kept = [100.0, 880.0, 900.0]
    for index, own in enumerate(kept):
        others = kept[:index] + kept[index + 1 :]
        expected = First.WAIT if own == 100.0 else First.OWN
        assert first(own=own, healing=max(others), remembered=905.0) is expected
    assert first(own=100.0, healthy=890.0, healing=880.0) is First.DONOR


def test_the_only_other_peer_alive_is_not_healed_yet():
    """It is no donor, and nobody begins beside it from the seed or from something old."""
    for waited in (0.0, PATIENCE, 1e6):
        assert first(healing=400.0, remembered=400.0, waited=waited) is First.WAIT
    assert first(own=50.0, healing=400.0) is First.WAIT
    assert first(own=50.0, healing=400.0, waited=PATIENCE) is First.OWN


def test_who_comes_first_after_a_power_cut_waits_for_those_who_hold_the_state():
    assert first(remembered=400.0) is First.WAIT
    assert first(remembered=400.0, waited=PATIENCE) is First.LOST
    assert first(own=50.0, remembered=400.0) is First.WAIT
    assert first(own=50.0, remembered=400.0, waited=PATIENCE) is First.OWN


def test_what_the_bootstrap_remembers_counts_no_more_when_somebody_trains():
    assert first(own=50.0, healthy=60.0, remembered=4000.0) is First.OWN


SAID = (None, 0.0, 100.0, 399.0, 401.0, 1000.0)


@pytest.mark.parametrize("waited", [0.0, PATIENCE, 1e6])
def test_nobody_begins_from_the_seed_while_others_hold_a_trained_state(waited):
    for own, healthy, healing, remembered in itertools.product(SAID, repeat=4):
        found = first(own, healthy, healing, remembered, waited)
        if found is First.SEED:
            assert own is healthy is healing is remembered is None
        if found is First.DONOR:
            assert healthy is not None


def test_of_those_that_are_all_there_nobody_waits_for_ever():
    """Whatever they hold, the furthest begins at once where no bootstrap remembers more."""
    for kept in itertools.product((0.0, 100.0, 399.0, 401.0, 1000.0), repeat=3):
        best = max(kept)
        others = sorted(kept)[-2]
        assert first(own=best, healing=others) is First.OWN
