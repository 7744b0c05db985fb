from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from swarmnet.train.flat import flatten_parameters, layout_hash, trainable_parameters


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.inner = nn.Linear(5, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.inner(self.embed(ids))))


@pytest.fixture
def module() -> Tied:
    torch.manual_seed(0)
    return Tied()


def test_values_stay_and_the_vector_moves_them(module: Tied) -> None:
    ids = torch.arange(7)
    before = module(ids)
    flat = flatten_parameters(module)
    assert flat.shape == (7 * 5 + 5 * 5 + 5,)
    assert flat.dtype == torch.float32
    assert not flat.requires_grad
    assert torch.equal(module(ids), before)
    flat.zero_()
    assert torch.count_nonzero(module(ids)) == 0
    assert torch.equal(module.frozen, torch.ones(3))


def test_tied_weights_stay_tied(module: Tied) -> None:
    flat = flatten_parameters(module)
    assert module.head.weight is module.embed.weight
    assert module.head.weight.data_ptr() == flat.data_ptr()


def test_parameters_keep_their_identity_for_an_optimizer(module: Tied) -> None:
    parameters = trainable_parameters(module)
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    flat = flatten_parameters(module)
    before = flat.clone()
    module(torch.arange(7)).square().sum().backward()
    optimizer.step()
    gradient = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
    assert torch.equal(flat, before.sub(gradient, alpha=0.1))


def test_training_on_views_is_training(module: Tied) -> None:
    plain = copy.deepcopy(module)
    flatten_parameters(module)
    for net in (module, plain):
        optimizer = torch.optim.AdamW(trainable_parameters(net), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.arange(7)).square().sum().backward()
            optimizer.step()
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_transposed_parameter_keeps_its_values() -> None:
    module = nn.Linear(3, 2, bias=False)
    module.weight.data = torch.arange(6.0).reshape(3, 2).T
    flat = flatten_parameters(module)
    assert flat.tolist() == [0, 2, 4, 1, 3, 5]
    assert module.weight.tolist() == [[0, 2, 4], [1, 3, 5]]


def test_other_types_and_nothing_are_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        flatten_parameters(nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match="no trainable"):
        flatten_parameters(nn.ReLU())


def test_layout_hash_names_shapes_and_not_values(module: Tied) -> None:
    same = layout_hash(Tied())
    assert layout_hash(module) == same
    flatten_parameters(module).zero_()
    assert layout_hash(module) == same
    module.inner = nn.Linear(5, 5, bias=False)
    assert layout_hash(module) != same
    assert len(bytes.fromhex(same)) == 16
