"""The laws of NoLoCo's outer step in float64: mean, reductions, contraction, stability.

``rule`` is the step as the paper's algebra has it (arXiv 2506.10911, with the right sign), for a
whole population at once; the class under test does it in the split form that meetings need.
"""

from __future__ import annotations

import random

import pytest
import torch

from swarmnet.codec.bf16 import BFloat16
from swarmnet.codec.int8 import Int8
from swarmnet.codec.raw import Raw
from swarmnet.outer.average import Average
from swarmnet.outer.noloco import NoLoCo
from swarmnet.reduce.mean import Mean
from tests.outers import sent_by, solo_move

P = 300
CODECS = {
    "raw": Raw(Raw.Config(double=True)),
    "bf16": BFloat16(BFloat16.Config()),
    "int8": Int8(Int8.Config()),
}
MEAN = Mean(Mean.Config())
SETTINGS = [(0.5, 0.7, 0.7), (0.5, 0.7, 0.3), (0.0, 1.0, 1.0), (0.9, 0.7, 0.3), (0.7, 1.3, 1.0)]


def normal(*shape, seed=0, dtype=torch.float64):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source, dtype=dtype)


def noloco(alpha, beta, gamma):
    return NoLoCo(NoLoCo.Config(alpha=alpha, beta=beta, gamma=gamma))


def unchecked(alpha, beta, gamma):
    """A rule that the config would refuse."""
    return NoLoCo(
        NoLoCo.Config.model_construct(
            alpha=alpha, beta=beta, gamma=gamma, no_consensus=False, by_work=False
        )
    )


def population(starts, *setting, build=noloco):
    outers = [build(*setting) for _ in starts]
    for outer, start in zip(outers, starts, strict=True):
        outer.start(start)
    return outers


def state(outers, name):
    return torch.stack([outer.tensors()[name] for outer in outers])


def random_groups(n, source, size=2):
    """A random partition into groups of ``size``, the remainder smaller."""
    order = list(range(n))
    source.shuffle(order)
    return [sorted(order[start : start + size]) for start in range(0, n, size)]


def through(codec, vector, seed):
    """What everybody, the sender included, decodes."""
    out = torch.empty_like(vector)
    generator = torch.Generator().manual_seed(seed)
    payload = memoryview(codec.encode(vector.reshape(-1), generator))
    return codec.decode(payload, out.view(-1)).view_as(vector)


def combined(sent):
    """The plain mean of contributions, row by row."""
    rows = zip(*sent, strict=True)
    return torch.stack([MEAN.combine(list(row), [1.0] * len(sent)) for row in rows])


def meet(outers, thetas, groups, codec=CODECS["raw"]):
    """One outer step of everybody; returns the new thetas, displaced snapshots."""
    results = [theta.clone() for theta in thetas]
    for group in groups:
        sent = [through(codec, sent_by(outers[i], thetas[i]), seed=i) for i in group]
        mean = combined(sent)
        for i, own in zip(group, sent, strict=True):
            results[i] += solo_move(outers[i], thetas[i])
            if len(group) > 1:
                correction = outers[i].correction(mean - own)
                outers[i].settle(correction)
                results[i] += correction
    return torch.stack(results)


def rule(phi, delta, moves, groups, setting):
    """Rule (A), (B) on (N, P) tensors: new phi and delta."""
    alpha, beta, gamma = setting
    mean_move, mean_phi = moves.clone(), phi.clone()
    for group in groups:
        mean_move[group] = moves[group].mean(0)
        mean_phi[group] = phi[group].mean(0)
    delta = alpha * delta + beta * mean_move - gamma * (phi - mean_phi)
    return phi + delta, delta


def close(a, b, tolerance):
    assert (a - b).abs().max() <= tolerance


# Mean law


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_mean_goes_where_the_rule_says(setting, size, codec):
    alpha, beta, _ = setting
    source = random.Random(3)
    outers = population(normal(7, P, seed=1), *setting)
    for step in range(5):
        phi, delta = state(outers, "phi"), state(outers, "delta")
        moves = normal(7, P, seed=100 + step)
        meet(outers, phi + moves, random_groups(7, source, size), CODECS[codec])
        expected = alpha * delta.mean(0) + beta * moves.mean(0)
        close(state(outers, "delta").mean(0), expected, 1e-12)
        close(state(outers, "phi").mean(0), phi.mean(0) + expected, 1e-12)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_without_gradients_the_mean_is_constant_for_ever(setting, codec):
    source = random.Random(4)
    thetas = start = normal(9, P, seed=2)
    outers = population(start, *setting)
    for _ in range(50):
        thetas = meet(outers, state(outers, "phi"), random_groups(9, source), CODECS[codec])
    close(thetas.mean(0), start.mean(0), 1e-12)
    close(state(outers, "phi").mean(0), start.mean(0), 1e-12)


@pytest.mark.parametrize("codec", CODECS)
def test_plain_averaging_keeps_the_mean_too(codec):
    source = random.Random(5)
    thetas = start = normal(9, P, seed=3)
    outers = population(start, build=lambda: Average(Average.Config()))
    for _ in range(50):
        thetas = meet(outers, thetas, random_groups(9, source), CODECS[codec])
    close(thetas.mean(0), start.mean(0), 1e-12)


def test_a_late_correction_keeps_the_mean_and_a_lost_group_costs_only_the_correction():
    start, moves = normal(2, P, seed=6), normal(2, P, seed=7)
    late, alone = population(start, 0.5, 0.7, 0.3), population(start, 0.5, 0.7, 0.3)
    sent = [sent_by(o, t) for o, t in zip(late, start + moves, strict=True)]
    mean = combined(sent)
    for pair in (late, alone):
        for _ in range(3):
            for outer, move in zip(pair, moves, strict=True):
                solo_move(outer, outer.tensors()["phi"] + move)
    for outer, own in zip(late, sent, strict=True):
        outer.settle(outer.correction(mean - own))
    close(state(late, "phi").mean(0), state(alone, "phi").mean(0), 1e-12)
    close(state(late, "delta").mean(0), state(alone, "delta").mean(0), 1e-12)


# The split form is the rule


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s[0] < 0.8], ids=str)
def test_an_exchange_on_time_is_the_papers_rule(setting):
    source = random.Random(8)
    phi, delta = normal(6, P, seed=8), torch.zeros(6, P, dtype=torch.float64)
    outers = population(phi, *setting)
    for step in range(6):
        moves, groups = normal(6, P, seed=200 + step), random_groups(6, source)
        thetas = meet(outers, phi + moves, groups)
        phi, delta = rule(phi, delta, moves, groups, setting)
        close(state(outers, "phi"), phi, 1e-12)
        close(state(outers, "delta"), delta, 1e-12)
        close(thetas, phi, 1e-12)


@pytest.mark.parametrize("n", [2, 8])
@pytest.mark.parametrize("gamma", [0.2, 0.7, 1.4])
def test_one_group_of_all_is_diloco_with_heavy_ball(n, gamma):
    phi, delta = normal(P, seed=9), torch.zeros(P, dtype=torch.float64)
    outers = population(phi.expand(n, P), 0.5, 0.7, gamma)
    for step in range(6):
        moves = normal(n, P, seed=300 + step)
        thetas = meet(outers, state(outers, "phi") + moves, [list(range(n))])
        delta = 0.5 * delta + 0.7 * moves.mean(0)
        phi = phi + delta
        close(thetas, phi.expand(n, P), 1e-12)


@pytest.mark.parametrize("name", ["noloco", "average"])
def test_without_memory_it_is_gossip_averaging(name):
    builds = {"noloco": lambda: noloco(0.0, 1.0, 1.0), "average": lambda: Average(Average.Config())}
    source = random.Random(10)
    thetas = normal(6, P, seed=10)
    outers = population(thetas, build=builds[name])
    for step in range(4):
        thetas, groups = thetas + normal(6, P, seed=400 + step), random_groups(6, source)
        after = meet(outers, thetas, groups)
        for group in groups:
            close(after[group], thetas[group].mean(0).expand(2, P), 1e-13)
        thetas = after


def test_without_memory_and_alone_nothing_happens_to_theta():
    outer = noloco(0.0, 1.0, 0.9)
    outer.start(normal(P, seed=11))
    theta = normal(P, seed=12)
    close(solo_move(outer, theta), torch.zeros(P, dtype=torch.float64), 1e-15)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=str
)
def test_sending_theta_alone_is_exact_when_gamma_is_beta(dtype, tolerance):
    close(*one_and_two_tensors(dtype, CODECS["raw"]), tolerance)


def test_sending_theta_alone_is_another_step_once_a_codec_loses_bits():
    one, two = one_and_two_tensors(torch.float64, CODECS["bf16"])
    assert (one - two).abs().max() > 1e-4


def one_and_two_tensors(dtype, codec):
    """phi after one meeting: theta sent alone, and phi with Delta as the rule has it."""
    start, moves = normal(2, P, seed=13, dtype=dtype), normal(2, P, seed=14, dtype=dtype)
    outers = population(start, 0.5, 0.7, 0.7)
    assert outers[0].width() == 1
    meet(outers, start + moves, [[0, 1]], codec)
    sent = torch.cat((start, moves), 1)
    decoded = torch.stack([through(codec, vector, seed=i) for i, vector in enumerate(sent)])
    phi_gap, move_gap = (decoded.mean(0) - decoded).chunk(2, dim=1)
    two = start + 0.7 * moves + 0.7 * move_gap + 0.7 * phi_gap
    return state(outers, "phi"), two


# Contraction and stability: E[x^2], E[x delta], E[delta^2] between replicas without gradients


def second_moments(alpha, gamma, n):
    """The exact one-step map of those three under random pairs of n replicas."""
    a, g = alpha, gamma
    k = 0.5 if n is None else n / (2 * (n - 1))
    gk, ggk = g * k, g * g * k
    return torch.tensor(
        [
            [1 - 2 * gk + ggk, 2 * a - 2 * a * gk, a * a],
            [-gk + ggk, a - 2 * a * gk, a * a],
            [ggk, -2 * a * gk, a * a],
        ],
        dtype=torch.float64,
    )


def variance_path(alpha, gamma, n, steps):
    moments, path = torch.tensor([1.0, 0, 0], dtype=torch.float64), []
    for _ in range(steps):
        moments = second_moments(alpha, gamma, n) @ moments
        path.append(float(moments[0]))
    return path


def rate(alpha, gamma, n):
    return float(torch.linalg.eigvals(second_moments(alpha, gamma, n)).abs().max())


def gamma_max(alpha, n):
    return 2 * (1 - alpha**2) / (1 - alpha / (n - 1))


def measured_path(n, steps, draws, step):
    """Monte Carlo of the same: mean over draws of pairings of V_t / V_0."""
    path = torch.zeros(steps, dtype=torch.float64)
    for draw in range(draws):
        source = random.Random(draw)
        start = normal(n, 16, seed=draw)
        start -= start.mean(0)
        path += step(start, source, steps) / start.square().mean() / draws
    return path.tolist()


def by_class(*setting):
    def step(start, source, steps):
        outers, variances = population(start, *setting, build=unchecked), []
        for _ in range(steps):
            meet(outers, state(outers, "phi"), random_groups(len(start), source))
            variances.append(state(outers, "phi").square().mean())
        return torch.stack(variances)

    return step


def by_rule(*setting):
    def step(start, source, steps):
        phi, delta, variances = start, torch.zeros_like(start), []
        for _ in range(steps):
            groups = random_groups(len(start), source)
            phi, delta = rule(phi, delta, torch.zeros_like(phi), groups, setting)
            variances.append(phi.square().mean())
        return torch.stack(variances)

    return step


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ((0.0, 1.0, 8), [0.4286, 0.1837, 0.0787]),
        ((0.0, 1.0, 2), [0.0]),
        ((0.5, 0.7, 16), [0.515, 0.260, 0.190, 0.150, 0.104, 0.068]),
    ],
    ids=str,
)
def test_disagreement_shrinks_by_the_known_numbers(setting, expected):
    assert variance_path(*setting, len(expected)) == pytest.approx(expected, abs=6e-4)


def test_asymptotic_rates_and_the_best_of_them():
    assert rate(0.5, 0.7, 16) == pytest.approx(0.685, abs=1e-3)
    assert rate(0.5, 0.7, None) == pytest.approx(0.700, abs=1e-3)
    best = min(rate(0.5, g / 1000, None) for g in range(10, 1500))
    assert best == pytest.approx(0.625, abs=1e-3)
    assert rate(0.5, 0.29, None) == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize(("alpha", "gamma", "n"), [(0.0, 1.0, 8), (0.5, 0.7, 16), (0.5, 0.4, 6)])
def test_the_class_shrinks_disagreement_as_the_recursion_says(alpha, gamma, n):
    measured = measured_path(n, 6, 400, by_class(alpha, 0.7, gamma))
    assert measured == pytest.approx(variance_path(alpha, gamma, n, 6), rel=0.1)


def test_two_that_average_are_one_at_once():
    assert measured_path(2, 1, 3, by_class(0.0, 1.0, 1.0)) == pytest.approx([0.0], abs=1e-25)


@pytest.mark.parametrize("n", [4, 8, 16, 64])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9])
def test_the_edge_of_stability_is_where_the_formula_says(alpha, n):
    edge = gamma_max(alpha, n)
    assert rate(alpha, 0.99 * edge, n) < 1 < rate(alpha, 1.01 * edge, n)
    assert rate(alpha, 1e-3, n) < 1


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9])
def test_the_config_allows_exactly_what_is_stable_in_any_swarm(alpha):
    edge = 2 * (1 - alpha**2)
    assert rate(alpha, 0.99 * edge, None) < 1 < rate(alpha, 1.01 * edge, None)
    noloco(alpha, 0.7, 0.999 * edge)
    with pytest.raises(ValueError, match="keep replicas together"):
        noloco(alpha, 0.7, 1.001 * edge)


def test_high_momentum_with_strong_consensus_grows_although_the_paper_allows_it():
    path = variance_path(0.9, 1.0, 16, 40)
    assert path[39] / path[38] == pytest.approx(1.19, abs=0.01)
    assert path[19] == pytest.approx(20, rel=0.1)
    measured = measured_path(16, 20, 200, by_rule(0.9, 0.7, 1.0))
    assert measured[19] == pytest.approx(path[19], rel=0.25)


def test_outside_the_momentum_the_same_setting_contracts():
    measured = measured_path(16, 6, 60, by_class(0.9, 0.7, 0.3))
    assert measured == pytest.approx(variance_path(0.0, 0.3, 16, 6), rel=0.05)
