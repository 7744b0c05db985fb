"""What every outer rule keeps: the mean law, immutable snapshots, a state that travels."""

from __future__ import annotations

import pytest
import torch

from swarmnet import registry
from tests.outers import sent_by, solo_move

P = 40
VARIANTS = [(name, {}) for name in registry.names("outer")] + [
    ("noloco", {"gamma": 0.4}),
    ("noloco", {"by_work": True}),
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
    sent = sent_by(outer, theta)
    assert outer.width() in (1, 2)
    kept = sent.clone()
    solo_move(outer, theta)
    outer.settle(normal(2))
    assert torch.equal(theta, before)
    assert torch.equal(sent, kept)


def test_corrections_of_a_group_sum_to_zero(make):
    outers = [make(normal(i)) for i in range(3)]
    sent = [sent_by(outer, normal(10 + i)) for i, outer in enumerate(outers)]
    mean = sum(sent) / 3
    total = sum(outer.correction(mean - own) for outer, own in zip(outers, sent, strict=True))
    assert total.shape == (P,)
    assert total.abs().max() < 1e-14


def test_a_correction_reads_no_state(make):
    early, late = make(normal(0)), make(normal(0))
    own, mean = sent_by(early, normal(1)), sent_by(early, normal(2))
    solo_move(late, normal(1))
    late.settle(normal(3))
    assert torch.equal(early.correction(mean - own), late.correction(mean - own))


def test_twins_that_have_not_moved_stay_where_they_are(make):
    theta = normal(0)
    outer = make(theta)
    sent = sent_by(outer, theta)
    assert (solo_move(outer, theta) == 0).all()
    assert (outer.correction(sent - sent) == 0).all()


def test_slow_weights_end_where_the_displaced_snapshot_ends(make):
    outer, theta = make(normal(0)), normal(1)
    moved, late = solo_move(outer, theta), normal(2)
    outer.settle(late)
    slow = outer.tensors().get("phi")
    if slow is not None:
        torch.testing.assert_close(slow, theta + moved + late, rtol=1e-14, atol=1e-14)


def test_a_loaded_state_is_a_copy_that_goes_the_same_way(make):
    outer = make(normal(0))
    solo_move(outer, normal(1))
    state = {name: tensor.clone() for name, tensor in outer.tensors().items()}
    copies = {name: tensor.clone() for name, tensor in state.items()}
    twin = make(normal(9))
    twin.load(state)
    for each in (outer, twin):
        solo_move(each, normal(2))
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
        solo_move(cls(cls.Config()), normal(0))


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


def test_an_average_by_rate_follows_the_fast_and_no_boaster_rules():
    cls = registry.find("outer", "average")
    by_rate = cls(cls.Config(by_rate=True))
    slow, fast = by_rate.effort(1, 2.0), by_rate.effort(1, 0.2)
    assert by_rate.shares([slow, fast]) == [[500.0, 5000.0]]
    assert by_rate.shares([slow, by_rate.effort(1, 1e-12)]) == [[(2**32 - 1) / 16, 2**32 - 1]]
    assert by_rate.effort(0, 0.0) == 0
    assert by_rate.shares([0, 0]) == [[1.0, 1.0]]
    assert cls(cls.Config()).shares([slow, fast]) == [[1.0, 1.0]]


def test_shares_follow_work_in_delta_only():
    cls = registry.find("outer", "noloco")
    weighed = cls(cls.Config(by_work=True))
    assert weighed.shares([20, 2]) == [[1.0, 1.0], [20.0, 2.0]]
    assert weighed.shares([0, 100, 2]) == [[1.0] * 3, [0.0, 32.0, 2.0]]
    assert weighed.shares([0, 0]) == [[1.0, 1.0], [1.0, 1.0]]
    assert cls(cls.Config()).shares([20, 2]) == [[1.0, 1.0]]
