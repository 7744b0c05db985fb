"""What every inner optimizer keeps: it learns, it clears gradients, its state travels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from swarmnet import registry
from swarmnet.inner.adamw import AdamW


@pytest.fixture(params=registry.names("inner"))
def cls(request):
    return registry.find("inner", request.param)


def parameters(seed=0):
    source = torch.Generator().manual_seed(seed)
    shapes = [(5, 4), (4,), (2, 3), (1,)]
    return [nn.Parameter(torch.randn(shape, generator=source)) for shape in shapes]


def numel(params):
    return sum(p.numel() for p in params)


def flat(params):
    return torch.cat([p.detach().flatten() for p in params])


def backward(params, scale=1.0):
    loss = sum(((p - 3.0) ** 2).sum() for p in params) * scale
    loss.backward()
    return float(loss.detach())


def test_it_learns_and_clears_gradients(cls):
    params = parameters()
    inner = cls(cls.Config(), params)
    losses = []
    for _ in range(60):
        losses.append(backward(params))
        inner.step(0.1)
        assert all(p.grad is None for p in params)
    assert losses[-1] < losses[0] / 2


def test_a_rate_of_zero_moves_nothing(cls):
    params = parameters()
    before = flat(params)
    backward(params)
    cls(cls.Config(), params).step(0.0)
    assert torch.equal(flat(params), before)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_replica_goes_on_from_a_copied_state(cls, steps):
    params, twins = parameters(), parameters(1)
    inner, twin = cls(cls.Config(), params), cls(cls.Config(), twins)
    for _ in range(steps):
        backward(params)
        inner.step(0.01)
    state = inner.tensors()
    assert all(t.dtype == torch.float32 for t in state.values())
    assert all(t.shape in ((), (numel(params),)) for t in state.values())
    twin.load(state)
    with torch.no_grad():
        for target, source in zip(twins, params, strict=True):
            target.copy_(source)
    for optimizer, own in ((inner, params), (twin, twins)):
        for _ in range(4):
            backward(own)
            optimizer.step(0.01)
    assert torch.equal(flat(params), flat(twins))
    assert all(torch.equal(t, twin.tensors()[name]) for name, t in inner.tensors().items())


def copied(inner):
    return {name: tensor.clone() for name, tensor in inner.tensors().items()}


def test_state_is_handed_out_without_a_copy(cls):
    params = parameters()
    inner = cls(cls.Config(), params)
    state = inner.tensors()
    backward(params)
    inner.step(0.1)
    now = inner.tensors()
    assert all(state[name].data_ptr() == now[name].data_ptr() for name in state)


def test_a_foreign_state_changes_nothing(cls):
    params = parameters()
    inner = cls(cls.Config(), params)
    backward(params)
    inner.step(0.1)
    before = copied(inner)
    short = {name: tensor.flatten()[:1] + 1 for name, tensor in before.items()}
    for wrong in ({}, {"other": torch.zeros(1)}, short):
        with pytest.raises(ValueError, match="state"):
            inner.load(wrong)
    assert all(torch.equal(tensor, before[name]) for name, tensor in inner.tensors().items())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_move_nothing(cls, poison):
    params = parameters()
    inner = cls(cls.Config(), params)
    weights, state = flat(params), copied(inner)
    backward(params, poison)
    inner.step(0.1)
    assert torch.equal(flat(params), weights)
    assert all(torch.equal(tensor, state[name]) for name, tensor in inner.tensors().items())
    assert all(p.grad is None for p in params)


def test_parameters_may_be_views_into_one_vector(cls):
    theta = flat(parameters())
    views, offset = [], 0
    for p in parameters():
        views.append(nn.Parameter(theta[offset : offset + p.numel()].view_as(p)))
        offset += p.numel()
    plain = parameters()
    for own in (views, plain):
        inner = cls(cls.Config(), own)
        for _ in range(3):
            backward(own)
            inner.step(0.02)
    assert torch.equal(theta, flat(plain))


def test_adamw_is_torchs_with_decay_on_matrices_and_a_global_clip():
    params, twins = parameters(), parameters()
    config = AdamW.Config(weight_decay=0.3, clip=0.5, betas=(0.8, 0.9))
    inner = AdamW(config, params)
    groups = [
        {"params": [p for p in twins if p.ndim == 2], "weight_decay": 0.3},
        {"params": [p for p in twins if p.ndim == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=1e-8, foreach=False)
    for step in range(5):
        rate = 0.01 * (step + 1)
        backward(params)
        backward(twins)
        norm = sum((p.grad**2).sum() for p in twins).sqrt()
        for p in twins:
            p.grad *= min(1.0, 0.5 / float(norm))
        for group in reference.param_groups:
            group["lr"] = rate
        inner.step(rate)
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(flat(params), flat(twins))
    assert inner.tensors()["step"] == 5
