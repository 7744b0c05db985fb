"""When a peer of the consensus phase counts itself, and others, as done."""

import math

import numpy as np
import pytest

from swarmnet.exchange.agreement import ASKED, CALM, FLAT, ROAMING, Agreement
from swarmnet.exchange.meeting import Scheduled

ANN, BOB, COE = "peerA", "peerB", "peerC"
NOWHERE = Scheduled()


def roaming(*distances, largest=1.0, bound=0.01):
    agreement = Agreement()
    agreement.gathering, agreement.bound, agreement.largest = False, bound, largest
    agreement.roaming = True
    for distance in distances:
        agreement.met(ANN, distance)
    return agreement


def refusal(agreement, index, peer=ANN, scheduled=NOWHERE, busy=False):
    return agreement.refuses(peer, index, scheduled, busy=busy)


@pytest.mark.parametrize(
    ("distances", "calm"),
    [
        ((), False),
        ((0.005,), False),
        ((0.01, 0.01), True),
        ((0.005, 0.02), False),
        ((0.02, 0.005), False),
        ((0.5, 0.005, 0.001), True),
        ((0.001, 0.001, 0.5), False),
    ],
)
def test_calm_means_that_the_last_two_distances_are_small(distances, calm):
    assert roaming(*distances).calm is calm


def test_with_one_other_peer_one_measurement_is_all_there_is():
    agreement = roaming(0.005)
    agreement.checks = 1
    assert agreement.calm


def test_distances_of_the_schedule_are_of_before_its_end():
    agreement = roaming()
    agreement.roaming = False
    for _ in range(4):
        agreement.met(ANN, 0.0)
    agreement.roaming = True
    assert not agreement.calm


def test_identical_replicas_are_calm_at_once():
    assert roaming(0.0, 0.0, largest=0.0).calm


def test_distances_that_no_longer_fall_are_as_good_as_it_gets():
    assert not roaming(0.4, 0.2, *[0.2] * (FLAT - 1)).calm
    assert roaming(0.4, 0.2, *[0.2] * FLAT).calm


def test_distances_that_fall_slowly_are_not_flat():
    assert not roaming(*[0.8**i for i in range(12)]).calm


def test_an_outsider_among_flat_distances_is_no_calm():
    assert not roaming(*[0.1] * 6, 0.9, *[0.1] * (FLAT - 1)).calm


def test_a_distance_that_was_not_kept_counts_as_a_meeting_only():
    agreement = roaming(0.001, 0.5)
    agreement.met(BOB, None)
    assert (agreement.held, agreement.calm) == (3, False)


def test_the_estimate_is_the_disagreement_of_many_replicas():
    """E[distance^2] = 2 N / (N - 1) s^2 over the pairs of N replicas."""
    source = np.random.default_rng(1)
    replicas = source.normal(size=(40, 500))
    s = np.sqrt(np.mean((replicas - replicas.mean(axis=0)) ** 2))
    pairs = [source.choice(40, 2, replace=False) for _ in range(400)]
    estimates = []
    for i, j in pairs:
        agreement = roaming(float(np.sqrt(np.mean((replicas[i] - replicas[j]) ** 2))))
        estimates.append(agreement.disagreement**2)
    assert np.mean(estimates) == pytest.approx(40 / 39 * s**2, rel=0.01)
    assert math.isnan(roaming().disagreement)


def test_a_meeting_takes_half_of_the_squared_distance_off_the_sum_of_squares():
    replicas = np.random.default_rng(2).normal(size=(6, 9))
    before = np.sum((replicas - replicas.mean(axis=0)) ** 2)
    squared = np.sum((replicas[1] - replicas[4]) ** 2)
    replicas[[1, 4]] = (replicas[1] + replicas[4]) / 2
    after = np.sum((replicas - replicas.mean(axis=0)) ** 2)
    assert before - after == pytest.approx(squared / 2, rel=1e-12)


def test_who_still_counts_heads_meets_nobody():
    assert refusal(Agreement(), 0) == "phase"


def test_who_follows_its_schedule_meets_its_partner_only():
    agreement, scheduled = roaming(), Scheduled(2, ANN)
    agreement.roaming = False
    assert refusal(agreement, 2, ANN, scheduled) is None
    assert refusal(agreement, 1, ANN, scheduled) == "index"
    assert refusal(agreement, 2, BOB, scheduled) == "index"
    assert refusal(agreement, ROAMING, BOB, scheduled) == "index"
    assert not agreement.spoilt
    for index in (ROAMING, CALM):
        assert refusal(agreement, index, ANN, scheduled) is None
    assert agreement.spoilt


def test_who_roams_meets_anybody_and_who_is_calm_those_who_are_not():
    for agreement in (roaming(), roaming(0, 0)):
        assert refusal(agreement, ROAMING) is None
        assert refusal(agreement, 3) is None
        assert refusal(agreement, ROAMING, busy=True) == "busy"
    assert refusal(roaming(), CALM) is None
    assert refusal(roaming(0, 0), CALM) == "calm"
    assert (roaming().index, roaming(0, 0).index) == (ROAMING, CALM)


def test_who_is_over_meets_nobody():
    agreement = roaming()
    agreement.over = True
    assert refusal(agreement, ROAMING) == "leaving"


def test_the_newest_word_of_a_peer_says_whether_it_is_done():
    agreement = roaming()
    refusal(agreement, CALM, ANN)
    agreement.declined(BOB, "calm")
    agreement.declined(COE, "leaving")
    assert agreement.done == {ANN, BOB, COE}
    assert agreement.done_in_a_row == 3 < ASKED
    refusal(agreement, ROAMING, BOB)
    agreement.declined(COE, "index")
    assert agreement.done == {ANN}
    assert agreement.done_in_a_row == 0
    assert agreement.seen == {ANN, BOB}
