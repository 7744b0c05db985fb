"""A tiny model in stages, in any type, and chains of cores that train it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swarmnet.train.flat import flatten_parameters, trainable_parameters
from swarmnet.train.passes import Arrival, Pass
from swarmnet.train.stage import StageCore

VOCAB, WIDTH, LENGTH = 11, 6, 5


class TinyStage(nn.Module):
    """An embedding, a block, a head: each where it belongs. Samples of a batch do not mix."""

    def __init__(self, first: bool, last: bool) -> None:
        super().__init__()
        self.first, self.last = first, last
        if first:
            self.embed = nn.Embedding(VOCAB, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.scale = nn.Parameter(torch.ones(LENGTH, WIDTH))
        if last:
            self.head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids: Tensor, received: Tensor | None = None) -> Tensor:
        hidden = self.embed(ids) if received is None else received
        hidden = hidden + self.down(torch.tanh(self.up(self.norm(hidden))))
        hidden = torch.cumsum(hidden, 1) * self.scale[: ids.shape[1]]
        return self.head(hidden) if self.last else hidden


class Sgd:
    """Plain gradient steps as an inner optimizer."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters

    def step(self, lr: float) -> None:
        for parameter in self._parameters:
            parameter.data.sub_(parameter.grad, alpha=lr)
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        assert not tensors


class Master:
    """What a replica is to a core, without any rule of exchange and of any float type."""

    def __init__(self, module: nn.Module, inner: Any = Sgd) -> None:
        self.module = module
        self.theta = flatten_parameters(module, next(module.parameters()).dtype)
        self.inner = inner(trainable_parameters(module))

    def load(self, tensors: Mapping[str, Tensor], *, met: bool) -> None:
        self.theta.copy_(tensors["theta"])
        self.inner.load({})


def model(stages: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[TinyStage]:
    torch.manual_seed(seed)
    return [TinyStage(k == 0, k == stages - 1).to(dtype) for k in range(stages)]


def cores(stages: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[StageCore]:
    """One peer for each stage; the same seed gives the same weights."""
    return [StageCore(Master(module)) for module in model(stages, dtype, seed)]


def texts(count: int, sequences: int = 2, length: int = LENGTH, seed: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    shape = (sequences, length + 1)
    return [torch.randint(0, VOCAB, shape, generator=source) for _ in range(count)]


def go_through(chain: Sequence[StageCore], samples: Mapping[int, Tensor]) -> list[list[Pass]]:
    """Forward of ``samples`` as one batch at every stage: the passes of each stage."""
    passes: list[list[Pass]] = []
    received: list[Tensor | None] = [None] * len(samples)
    for core in chain:
        arrivals = [
            Arrival(sample, tokens, given)
            for (sample, tokens), given in zip(samples.items(), received, strict=True)
        ]
        passes.append(core.forward(arrivals))
        received = [p.output for p in passes[-1]]
    return passes


def come_back(chain: Sequence[StageCore], passes: Sequence[Sequence[Pass]]) -> None:
    gradients: list[Tensor | None] = [None] * len(passes[-1])
    for core, own in zip(reversed(chain), reversed(passes), strict=True):
        gradients = core.backward(own, gradients)
    assert gradients == [None] * len(gradients)


def trip(chain: Sequence[StageCore], samples: Mapping[int, Tensor]) -> float:
    """There and back as one batch; the loss summed over tokens."""
    passes = go_through(chain, samples)
    come_back(chain, passes)
    return sum(p.loss for p in passes[-1])


def by_one_process(
    modules: Sequence[nn.Module], tokens: Sequence[Tensor]
) -> tuple[float, list[Tensor]]:
    """The summed loss and each stage's gradient sum (P,), by torch's own backward pass."""
    whole = torch.cat(list(tokens))
    hidden: Tensor | None = None
    for module in modules:
        hidden = module(whole[:, :-1], hidden)
    assert hidden is not None
    targets = whole[:, 1:].flatten()
    loss = functional.cross_entropy(hidden.flatten(0, 1), targets, reduction="sum")
    parameters = [trainable_parameters(module) for module in modules]
    found = iter(torch.autograd.grad(loss, [p for own in parameters for p in own]))
    sums = [torch.cat([next(found).flatten() for _ in own]) for own in parameters]
    return float(loss.detach()), sums
