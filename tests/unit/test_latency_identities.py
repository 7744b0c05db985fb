"""What a pair saves against everybody: message times are log-normal, nothing but waiting costs.

The figures are those of the method's latency analysis (arXiv 2506.10911, section 5.3).
"""

from __future__ import annotations

import math

import numpy as np
import pytest


def messages(rng, sigma, *shape):
    """Log-normal message times of mean 1."""
    return rng.lognormal(-(sigma**2) / 2, sigma, shape)


def longer_of_two(sigma):
    """E[max(t1, t2)] of two messages of mean 1."""
    return 1 + math.erf(sigma / 2)


def tree(rng, sigma, n, draws):
    """Mean time of a binary-tree all-reduce: half of those left send to the other half, and back.

    Down is up in reverse, so it takes the same time on average.
    """
    ready = np.zeros((draws, n))
    while ready.shape[1] > 1:
        stays, sends = ready[:, ::2], ready[:, 1::2]
        ready = np.maximum(stays, sends + messages(rng, sigma, *sends.shape))
    return 2 * ready.mean()


def pair(sigma):
    """The same for two: both there, and both back."""
    return 2 * longer_of_two(sigma)


def sigma_of(ratio):
    """From standard deviation over mean."""
    return math.sqrt(math.log(1 + ratio**2))


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_the_longer_of_two_messages_is_the_formula(sigma):
    rng = np.random.default_rng(0)
    longer = [messages(rng, sigma, 2, 2_000_000).max(axis=0).mean() for _ in range(4)]
    assert np.mean(longer) == pytest.approx(longer_of_two(sigma), rel=1e-3)


@pytest.mark.parametrize("n", [2, 16, 64, 1024])
def test_without_variance_a_tree_costs_log_n_pairs(n):
    assert tree(np.random.default_rng(0), 0.0, n, 1) / pair(0.0) == math.log2(n)


def test_variance_widens_the_gap_for_many():
    rng, sigma = np.random.default_rng(1), sigma_of(1.0)
    assert tree(rng, sigma, 1024, 500) / pair(sigma) > 1.15 * math.log2(1024)


def blocking(n, h, rounds):
    """Time of a barrier of all over that of pairs, where inner steps alone take time."""
    rng, clocks, barrier = np.random.default_rng(2), np.zeros(n), 0.0
    for _ in range(rounds):
        work = rng.lognormal(1.0, math.sqrt(0.5), (n, h)).sum(axis=1)
        barrier += work.max()
        order = rng.permutation(n).reshape(-1, 2)
        clocks[order] = (clocks + work)[order].max(axis=1, keepdims=True)
    return barrier / clocks.max()


def test_a_barrier_of_a_thousand_costs_a_fifth_more_than_pairs():
    assert blocking(1024, 100, 60) == pytest.approx(1.19, abs=0.01)
