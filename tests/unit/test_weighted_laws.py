"""The laws of a meeting of unequal work, in float64: Delta counts by work, phi counts equally.

``rule`` is NoLoCo's step (arXiv 2506.10911, with the right sign) for a whole population at once,
where the members of a group bring displacements of different length::

    D = sum w_j Delta_j / sum w_j        P = mean of phi_j        w_j inner steps behind Delta_j
    delta <- alpha * delta + beta * D - gamma * (phi - P);   phi <- phi + delta

Nothing here knows how a replica does it: these are the laws that any implementation has to keep.
"""

from __future__ import annotations

import random

import pytest
import torch

from swarmnet.reduce.mean import Mean

P = 200
N = 7
MEAN = Mean(Mean.Config())
SETTINGS = [(0.5, 0.7, 0.7), (0.5, 0.7, 0.3), (0.0, 1.0, 1.0), (0.7, 1.3, 1.0)]
WORKS = [1.0, 10.0, 10.0, 9.0, 0.0, 3.0, 100.0]


def normal(*shape, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source, dtype=torch.float64)


def weights(works):
    """A group in which nobody has worked counts equally: there is nothing to weigh."""
    return works if any(works) else [1.0] * len(works)


def blend(phi, moves, works):
    """(D, P) of one group: (n, P) each, and n works."""
    mean_move = MEAN.combine(list(moves), weights(works))
    return mean_move, MEAN.combine(list(phi), [1.0] * len(works))


def rule(state, moves, works, groups, setting):
    """One outer step of everybody: new phi and delta, (N, P) each."""
    (phi, delta), (alpha, beta, gamma) = state, setting
    mean_move, mean_phi = moves.clone(), phi.clone()
    for group in groups:
        mean_move[group], mean_phi[group] = blend(phi[group], moves[group], take(works, group))
    delta = alpha * delta + beta * mean_move - gamma * (phi - mean_phi)
    return phi + delta, delta


def take(works, group):
    return [works[i] for i in group]


def random_groups(source, size):
    order = list(range(N))
    source.shuffle(order)
    return [sorted(order[start : start + size]) for start in range(0, N, size)]


def beginning(seed=1):
    return normal(N, P, seed=seed), 0.1 * normal(N, P, seed=seed + 1)


def close(a, b, tolerance=1e-12):
    assert (a - b).abs().max() <= tolerance


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_mean_moves_by_the_weighted_displacements_and_by_nothing_else(setting, size):
    (alpha, beta, _), source, state = setting, random.Random(3), beginning()
    for step in range(5):
        (phi, delta), moves = state, normal(N, P, seed=100 + step)
        works, groups = random.Random(step).sample(WORKS, N), random_groups(source, size)
        told = sum(
            len(group) * sum(w * moves[i] for w, i in zip(own, group, strict=True)) / sum(own)
            for group in groups
            for own in [weights(take(works, group))]
        )
        state = rule(state, moves, works, groups, setting)
        close(state[1].mean(0), alpha * delta.mean(0) + beta * told / N)
        close(state[0].mean(0), phi.mean(0) + state[1].mean(0))


def test_consensus_cancels_however_unequal_the_work():
    moves, groups = normal(N, P, seed=5), [[0, 1], [2, 3, 4], [5, 6]]
    means = [
        rule(beginning(), moves, WORKS, groups, (0.5, 0.7, gamma))[0].mean(0)
        for gamma in (0.0, 0.3, 1.4)
    ]
    close(means[0], means[1])
    close(means[0], means[2])


@pytest.mark.parametrize("work", [0.0, 1.0, 7.0, 10_240.0])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_equal_work_is_the_plain_rule_bit_for_bit(setting, work):
    moves, groups = normal(N, P, seed=6), [[0, 1], [2, 3, 4], [5, 6]]
    weighted = rule(beginning(), moves, [work] * N, groups, setting)
    plain = rule(beginning(), moves, [1.0] * N, groups, setting)
    assert all(torch.equal(a, b) for a, b in zip(weighted, plain, strict=True))


def test_steps_and_tokens_weigh_the_same():
    moves, groups = normal(N, P, seed=7), [[0, 1], [2, 3], [4, 5, 6]]
    by_steps = rule(beginning(), moves, WORKS, groups, SETTINGS[0])
    by_tokens = rule(beginning(), moves, [1000 * w for w in WORKS], groups, SETTINGS[0])
    close(by_steps[0], by_tokens[0], 1e-14)


def test_a_newcomer_takes_the_partners_displacement_and_the_partner_keeps_it_whole():
    phi, moves = normal(2, P, seed=8), normal(2, P, seed=9)
    for garbage in (0.0, 1e6):
        mean_move, mean_phi = blend(phi, torch.stack((garbage * moves[0], moves[1])), [0.0, 20.0])
        assert torch.equal(mean_move, moves[1])
        close(mean_phi, phi.mean(0), 1e-15)


def test_without_gradients_work_means_nothing():
    state = plain = beginning()
    source, still = random.Random(10), torch.zeros(N, P, dtype=torch.float64)
    for _ in range(20):
        groups = random_groups(source, 2)
        state = rule(state, still, WORKS, groups, SETTINGS[0])
        plain = rule(plain, still, [1.0] * N, groups, SETTINGS[0])
    assert torch.equal(state[0], plain[0])


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_it_splits_into_a_solo_step_and_a_correction_that_may_come_late(setting):
    """What a lost partner costs is its correction, though corrections no longer sum to zero."""
    _, beta, gamma = setting
    (phi, delta), moves, works = (x[:2] for x in beginning()), normal(2, P, seed=11), [1.0, 10.0]
    both = list(range(2))
    mean_move, mean_phi = blend(phi, moves, works)
    corrections = beta * (mean_move - moves) - gamma * (phi - mean_phi)
    close(corrections.sum(0), beta * (2 * mean_move - moves.sum(0)))
    assert corrections.sum(0).abs().max() > 0.1

    whole = rule((phi, delta), moves, works, [both], setting)
    solo = rule((phi, delta), moves, works, [[0], [1]], setting)
    close(solo[0] + corrections, whole[0])
    close(solo[1] + corrections, whole[1])


def test_a_slow_member_takes_less_from_a_pair_than_under_equal_weights():
    """All pull one way, each as far as its steps: the pair goes by sum H^2 / sum H, not mean H."""
    one_step = normal(P, seed=12)
    for slow, fast in ((1.0, 10.0), (5.0, 10.0), (10.0, 10.0), (0.0, 10.0)):
        moves = torch.stack((slow * one_step, fast * one_step))
        goes, _ = blend(moves, moves, [slow, fast])
        close(goes, (slow**2 + fast**2) / (slow + fast) * one_step)
        assert (goes / one_step).mean() >= (slow + fast) / 2 - 1e-12


def test_weighing_phi_too_breaks_the_mean_law_and_keeps_only_a_weighted_one():
    """Why P is the plain mean: work changes from meeting to meeting, and so would the law."""
    phi, works = normal(2, P, seed=13), torch.tensor([1.0, 10.0], dtype=torch.float64)
    weighted = (works[:, None] * phi).sum(0) / works.sum()
    after = phi - 0.7 * (phi - weighted)
    assert (after.mean(0) - phi.mean(0)).abs().max() > 0.1
    close((works[:, None] * after).sum(0) / works.sum(), weighted)
