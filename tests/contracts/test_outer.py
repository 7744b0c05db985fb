"""What every outer rule keeps: the mean law, immutable snapshots, a state that travels."""

from __future__ import annotations

import pytest
import torch

from swarmnet import registry

P = 40
VARIANTS = [(name, {}) for name in registry.names("outer")] + [
    ("noloco", {"gamma": 0.4}),
    ("noloco", {"alpha": 0.9, "gamma": 0.3}),
    ("noloco", {"gamma": 0.0, "no_consensus": True}),
]


def normal(seed):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(P, generator=source, dtype=torch.float64)


@pytest.fixture(params=VARIANTS, ids=str)
def make(request):
    name, options = request.param
    cls = registry.find("outer", name)

    def build(start):
        outer = cls(cls.Config(**options))
        outer.start(start)
        return outer

    return build


def test_a_contribution_has_the_promised_width_and_only_reads_the_snapshot(make):
    outer, theta = make(normal(0)), normal(1)
    before = theta.clone()
    sent = outer.contribution(theta)
    assert outer.width() in (1, 2)
    assert sent.shape == (outer.width() * P,)
    kept = sent.clone()
    outer.solo(theta)
    outer.settle(normal(2))
    assert torch.equal(theta, before)
    assert torch.equal(sent, kept)


def test_corrections_of_a_group_sum_to_zero(make):
    outers = [make(normal(i)) for i in range(3)]
    sent = [outer.contribution(normal(10 + i)) for i, outer in enumerate(outers)]
    mean = sum(sent) / 3
    total = sum(outer.correction(own, mean) for outer, own in zip(outers, sent, strict=True))
    assert total.shape == (P,)
    assert total.abs().max() < 1e-14


def test_a_correction_reads_no_state(make):
    early, late = make(normal(0)), make(normal(0))
    own, mean = early.contribution(normal(1)), early.contribution(normal(2))
    late.solo(normal(1))
    late.settle(normal(3))
    assert torch.equal(early.correction(own, mean), late.correction(own, mean))


def test_twins_that_have_not_moved_stay_where_they_are(make):
    theta = normal(0)
    outer = make(theta)
    sent = outer.contribution(theta)
    moved = outer.solo(theta)
    assert moved is None or (moved == 0).all()
    assert (outer.correction(sent, sent) == 0).all()


def test_slow_weights_end_where_the_displaced_snapshot_ends(make):
    outer, theta = make(normal(0)), normal(1)
    moved, late = outer.solo(theta), normal(2)
    outer.settle(late)
    slow = outer.tensors().get("phi")
    if slow is not None:
        torch.testing.assert_close(slow, theta + moved + late, rtol=1e-14, atol=1e-14)


def test_state_travels_and_is_a_snapshot(make):
    outer = make(normal(0))
    outer.solo(normal(1))
    state = outer.tensors()
    copies = {name: tensor.clone() for name, tensor in state.items()}
    twin = make(normal(9))
    twin.load(state)
    for each in (outer, twin):
        each.solo(normal(2))
        each.settle(normal(3))
    assert all(torch.equal(state[name], copies[name]) for name in state)
    after = twin.tensors()
    assert all(torch.equal(after[name], tensor) for name, tensor in outer.tensors().items())
    assert all(tensor.shape == (P,) for tensor in state.values())


def test_a_foreign_state_is_refused(make):
    with pytest.raises(ValueError, match="state"):
        make(normal(0)).load({"momentum": normal(1)})


def test_noloco_before_its_start_says_so():
    cls = registry.find("outer", "noloco")
    with pytest.raises(RuntimeError, match="start"):
        cls(cls.Config()).solo(normal(0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alpha": 0.9}, "0 < gamma < 0.38"),
        ({"alpha": 0.5, "gamma": 1.5}, "0 < gamma < 1.5"),
        ({"gamma": -0.1}, "0 < gamma < 1.5"),
        ({"gamma": 0.0}, "no_consensus = true"),
        ({"no_consensus": True}, "gamma = 0 only"),
        ({"gamma": float("nan")}, "finite"),
        ({"beta": 0.0}, "greater than 0"),
        ({"alpha": 1.0}, "less than 1"),
    ],
)
def test_noloco_refuses_what_is_unstable(options, says):
    with pytest.raises(ValueError, match=says):
        registry.find("outer", "noloco").Config(**options)
