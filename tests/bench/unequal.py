"""What a peer ten times slower does to its swarm, by how work is weighed and windows are cut.

Four peers that take a step per tick and one that takes a step in ten ticks, on one quadratic with
noisy gradients (curvatures from 0.01 to 1): random pairs of those that are ripe, results at once,
a cosine over the run. The first row of each block is the same swarm without the slow peer.

Read it so: ``pace`` is the distance that gradients without noise and with one slope move the mean,
``end`` the loss above the optimum at the run's rate, ``tuned`` that at the best of several rates,
for the slow peer also lowers the effective rate; all are ratios to the first row.

    python tests/bench/unequal.py --json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

DIM, SLOWER = 8, 10
CURVATURE = np.logspace(-2, 0, DIM)
NOISE, LR = 0.3, 0.1
RATES = [1.0, 1.41, 2.0, 2.83, 4.0]
Rule = Literal["equal", "work", "normalised", "both", "rate"]


@dataclass(frozen=True)
class Swarm:
    """``h`` of the fast and of the slow peer; ``slow`` of them beside ``fast`` others."""

    label: str
    fast: int = 4
    slow: int = 1
    h: tuple[int, int] = (10, 1)
    rule: Rule = "equal"


@dataclass(frozen=True)
class Row:
    """One swarm's figures, all as ratios to the swarm without the slow peer."""

    label: str
    pace: float
    end: float
    tuned: float


SWARMS = [
    Swarm("without, H 10", slow=0),
    Swarm("five fast, H 10", fast=5, slow=0),
    Swarm("fixed H 10, equal", h=(10, 10)),
    Swarm("H by rate, equal"),
    Swarm("H by rate, Delta / H", rule="normalised"),
    Swarm("H by rate, Delta by work", rule="work"),
    Swarm("H by rate, Delta and phi by work", rule="both"),
]
EACH_STEP = [
    Swarm("without, each step", slow=0, h=(1, 1)),
    Swarm("each step, equal", h=(1, 1)),
    Swarm("each step, Delta by work", h=(1, 1), rule="work"),
    Swarm("each step, theta by rate", h=(1, 1), rule="rate"),
]
OUTERS = {"noloco": (0.5, 0.7, 0.7), "average": (0.0, 1.0, 1.0)}


@dataclass
class State:
    """All replicas of all seeds, (seeds, peers, DIM) each."""

    theta: np.ndarray
    phi: np.ndarray
    delta: np.ndarray


def simulate(swarm, outer, plan, gradient):
    """Train; returns the mean of all theta of each seed in the end, (seeds, DIM)."""
    peers = swarm.fast + swarm.slow
    every = np.array([1] * swarm.fast + [SLOWER] * swarm.slow)
    h = np.array([swarm.h[0]] * swarm.fast + [swarm.h[1]] * swarm.slow)
    source = np.random.default_rng(7)
    start = np.ones((plan.seeds, peers, DIM))
    state = State(start.copy(), start.copy(), np.zeros_like(start))
    work = np.zeros(peers)
    for tick in range(1, plan.ticks + 1):
        lr = plan.lr * (0.1 + 0.45 * (1 + np.cos(np.pi * tick / plan.ticks)))
        steps = tick % every == 0
        state.theta -= lr * steps[:, None] * gradient(state.theta, source)
        work += steps
        ripe = np.flatnonzero(steps & (work >= h))
        if len(ripe):
            order = source.permuted(np.tile(ripe, (plan.seeds, 1)), axis=1)
            for first in range(0, len(ripe), 2):
                meet(swarm.rule, order[:, first : first + 2], state, (work, 1 / every), outer)
            work[ripe] = 0
    return state.theta.mean(axis=1)


def meet(rule, group, state, weights, outer):
    """One outer step of one group in each seed; ``group`` is (seeds, members), 1 or 2 of them."""
    alpha, beta, gamma = outer
    at = np.arange(len(group))[:, None], group
    phi = state.phi[at]
    moved, centre = blend(rule, state.theta[at] - phi, phi, *(w[group] for w in weights))
    state.delta[at] = alpha * state.delta[at] + beta * moved - gamma * (phi - centre)
    state.phi[at] = state.theta[at] = phi + state.delta[at]


def blend(rule, moves, phi, work, rate):
    """(D, P) of a group in each seed, (seeds, 1, DIM) each."""

    def mean(vectors, by):
        shares = by / by.sum(axis=1, keepdims=True)
        return (shares[:, :, None] * vectors).sum(axis=1, keepdims=True)

    alike = np.ones_like(work)
    if rule == "normalised":
        return mean(moves / work[:, :, None], alike) * work.mean(axis=1)[:, None, None], mean(
            phi, alike
        )
    by_move = {"equal": alike, "work": work, "both": work, "rate": rate}[rule]
    by_phi = {"equal": alike, "work": alike, "both": work, "rate": rate}[rule]
    return mean(moves, by_move), mean(phi, by_phi)


@dataclass(frozen=True)
class Length:
    """How long, how often, and at which peak learning rate."""

    ticks: int
    seeds: int
    lr: float = LR


def slope(theta, source):
    return np.ones_like(theta)


def noisy(theta, source):
    return CURVATURE * theta + NOISE * source.normal(size=theta.shape)


def measure(swarms, outer, plan):
    """Rows for ``swarms``, the first of which is the one without a slow peer."""
    made = []
    for swarm in swarms:
        went = 1 - simulate(swarm, outer, plan, slope).mean()
        ends = [
            np.mean(simulate(swarm, outer, replace(plan, lr=plan.lr * by), noisy) ** 2 @ CURVATURE)
            for by in RATES
        ]
        made.append((went, ends[RATES.index(1.0)], min(ends)))
        print(f"{swarm.label}: best rate {RATES[int(np.argmin(ends))]:g}", file=sys.stderr)
    return [
        Row(swarm.label, *(float(own / base) for own, base in zip(figures, made[0], strict=True)))
        for swarm, figures in zip(swarms, made, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ticks", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    result = {}
    for name, outer in OUTERS.items():
        rows = []
        for swarms in (SWARMS, EACH_STEP):
            rows += measure(swarms, outer, Length(options.ticks, options.seeds))
        result[name] = [asdict(row) for row in rows]
        if not options.json:
            print(f"{name:34}{'pace':>8}{'end':>8}{'tuned':>8}")
            for row in rows:
                print(f"{row.label:34}{row.pace:8.3f}{row.end:8.2f}{row.tuned:8.2f}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
