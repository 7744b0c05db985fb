"""How fast replicas come together, and how far apart they live: measured against exact laws.

The rule is elementwise, so one instance holds whole swarms side by side: (draws, N, P) flattened.
``meet`` is the only place that knows how an outer rule is called.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from swarmnet.matching._order import shared_order
from swarmnet.matching.random_pairs import RandomPairs
from swarmnet.outer.noloco import NoLoCo
from tests.bench import contraction
from tests.unit.test_noloco_laws import rate, variance_path

MATCHING = RandomPairs(RandomPairs.Config())


def partners(n, rounds, draws):
    """(rounds, draws, N): who meets whom, in the matching's own order (n is even)."""
    roster = [f"peer{i:08d}" for i in range(n)]
    place = {peer: i for i, peer in enumerate(roster)}
    found = torch.empty(rounds, draws, n, dtype=torch.long)
    for index, draw in itertools.product(range(rounds), range(draws)):
        order = torch.tensor([place[peer] for peer in shared_order(roster, index, draw)])
        found[index, draw, order] = order.view(-1, 2).flip(1).flatten()
    first = [place[MATCHING.partner(peer, roster, 0, 0)] for peer in roster]
    assert found[0, 0].tolist() == first
    return found


def start(setting, theta):
    alpha, beta, gamma = setting
    outer = NoLoCo(NoLoCo.Config(alpha=alpha, beta=beta, gamma=gamma))
    outer.start(theta.flatten())
    return outer


def meet(outer, theta, pairs):
    """One outer step of all replicas at ``theta`` (draws, N, P), in the given pairs."""
    flat = theta.flatten()
    sent = flat.new_empty(outer.width(), len(flat))
    outer.contribution(flat, sent)
    vectors = sent.view(-1, *theta.shape)
    index = pairs[None, :, :, None].expand_as(vectors)
    pull = (vectors.gather(2, index) - vectors) / 2
    live = flat.clone()
    outer.solo(flat, live)
    correction = outer.correction(pull.view_as(sent))
    outer.settle(correction)
    return (live + correction).view_as(theta)


def spread(theta):
    """Variance between replicas, for each draw."""
    return theta.var(dim=1, correction=0).mean(dim=1)


@pytest.mark.parametrize(
    ("alpha", "gamma", "n"), [(0.0, 1.0, 8), (0.5, 0.7, 16), (0.5, 0.29, 8)], ids=str
)
def test_scheduled_pairs_contract_by_the_recursion(alpha, gamma, n):
    rounds, draws = 6, 15_000
    source = torch.Generator().manual_seed(1)
    theta = torch.randn(draws, n, 4, generator=source, dtype=torch.float64)
    outer, first, path = start((alpha, 0.7, gamma), theta), spread(theta).mean(), []
    for pairs in partners(n, rounds, draws):
        theta = meet(outer, theta, pairs)
        path.append(float(spread(theta).mean() / first))
    assert path == pytest.approx(variance_path(alpha, gamma, n, rounds), rel=0.02)


# Dispersion: quadratic loss of curvature 1, m steps of SGD with unit noise between meetings

N, M = 16, 50
SETTING = (0.5, 0.7, 0.7)


def dispersion(omega):
    """Stationary variance between replicas; the inner steps are drawn in closed form."""
    draws, warm, rounds = 40, 40, 200
    source = torch.Generator().manual_seed(2)
    theta = torch.zeros(draws, N, 16, dtype=torch.float64)
    outer, total = start(SETTING, theta), 0.0
    decay = 1 - omega
    noise = omega * math.sqrt(sum(decay ** (2 * step) for step in range(M)))
    schedule = PAIRS.repeat(math.ceil((warm + rounds) / len(PAIRS)), 1, 1)
    for number, pairs in enumerate(schedule[: warm + rounds]):
        kicks = torch.randn(theta.shape, generator=source, dtype=torch.float64)
        theta = meet(outer, decay**M * theta + noise * kicks, pairs)
        if number >= warm:
            total += float(spread(theta).mean()) / rounds
    return total


def predicted(omega):
    """As m * omega tends to 0 (reference value of the dispersion law)."""
    a, beta, g = SETTING
    k = N / (2 * (N - 1))
    b = beta**2 * M * omega**2 / 2 * (1 - 2 / N)
    return b * (1 + a) / (g * k * (2 - 2 * a**2 - g * (1 + a - 2 * a * k)))


PAIRS = partners(N, 40, 40)


@pytest.mark.parametrize("m_omega", [0.005, 0.025])
def test_replicas_live_as_far_apart_as_the_law_says(m_omega):
    omega = m_omega / M
    assert dispersion(omega) == pytest.approx(predicted(omega), rel=0.15)


def test_the_distance_grows_like_the_learning_rate():
    small, large = (math.sqrt(dispersion(m_omega / M)) for m_omega in (0.0025, 0.01))
    assert math.log(large / small) / math.log(4) == pytest.approx(1, abs=0.03)


# Without a schedule


@pytest.mark.parametrize("h", [1, 4])
def test_peers_that_choose_for_themselves_contract_as_if_scheduled(h):
    """Per exchange; pairs drawn one after the other would lose more than a quarter."""
    n = 32
    assert contraction.scheduled(n) == pytest.approx(-math.log(rate(0.0, 1.0, n)) / (n / 2))
    assert contraction.sequential(n) < 0.75 * contraction.scheduled(n)
    assert contraction.rate(n, h, seeds=4) == pytest.approx(contraction.scheduled(n), rel=0.15)
