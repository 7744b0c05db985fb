"""Delayed parameter updates (B1.6, law B4.9): the caller steps one batch later, nothing else.

The stage is a quadratic: its output is its weight x, and the tail's part is played by the test,
which sends L x back. Plain steps with the gradient of the weights before the last step obey
``r^2 - r + eta L = 0``: stable iff eta L < 1, where undelayed ones are up to 2.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from swarmnet.inner.adamw import AdamW
from swarmnet.train.passes import Arrival, Pass
from swarmnet.train.stage import StageCore
from swarmnet.train.sums import Sums
from tests.unit.tiny_stage import Master, Sgd

CURVATURES = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
TOKENS = torch.zeros(1, 2, dtype=torch.int64)


class Weights(nn.Module):
    """One microbatch of one token, whose activations are the weights themselves."""

    first, last = True, False

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(START.clone())

    def forward(self, ids: Tensor, received: Tensor | None = None) -> Tensor:
        return self.x.expand(1, 1, -1)


def run(inner: partial[AdamW] | type[Sgd], lr: float, steps: int, delayed: bool) -> list[Tensor]:
    """The weights after each step. A batch is one sample; delayed sums wait for one batch more."""
    core = StageCore(Master(Weights(), inner))
    path, under_way = [], None
    for sample in range(steps + delayed):
        [one] = core.forward([Arrival(sample, TOKENS)])
        if under_way is not None:
            take_step(core, under_way, lr)
            path.append(core.master.theta.clone())
        gather(core, one)
        under_way = core.freeze()
        if not delayed:
            take_step(core, under_way, lr)
            path.append(core.master.theta.clone())
            under_way = None
    return path


def gather(core: StageCore, one: Pass) -> None:
    assert one.output is not None
    core.backward([one], [CURVATURES * one.output])


def take_step(core: StageCore, sums: Sums, lr: float) -> None:
    core.step(sums.vector / sums.tokens, lr)
    core.discard(sums)


def explicit(optimizer: type[torch.optim.Optimizer], steps: int, **options: object) -> list[Tensor]:
    """theta_{b+1} = Opt(theta_b, gradient at theta_{b-1}); the first two batches begin alike."""
    x = nn.Parameter(START.clone())
    made = optimizer([x], **options)  # type: ignore[call-arg]
    path = [x.detach().clone(), x.detach().clone()]
    for _ in range(steps):
        x.grad = CURVATURES * path[-2]
        made.step()
        path.append(x.detach().clone())
    return path[2:]


def test_delayed_steps_are_gradient_steps_one_batch_late() -> None:
    found = run(Sgd, 0.7, 60, delayed=True)
    for ours, theirs in zip(found, explicit(torch.optim.SGD, 60, lr=0.7), strict=True):
        assert float((ours - theirs).abs().max()) < 1e-12


def test_delayed_adam_is_adam_one_batch_late() -> None:
    config = AdamW.Config(clip=float("inf"), weight_decay=0)
    found = run(partial(AdamW, config), 0.01, 60, delayed=True)
    expected = explicit(torch.optim.Adam, 60, lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("rate", "delayed", "stable"),
    [(0.95, True, True), (1.05, True, False), (1.95, False, True), (2.05, False, False)],
)
def test_a_delay_halves_the_largest_stable_rate(rate: float, delayed: bool, stable: bool) -> None:
    """``rate`` is eta L of the sharpest direction."""
    last = run(Sgd, rate, 400, delayed)[-1]
    assert bool(last.norm() < START.norm() / 100) == stable
    assert bool(last.norm() > START.norm() * 100) != stable
