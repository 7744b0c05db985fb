"""The backward pass in two parts: B, the gradient that a neighbour waits for, and W, the weights'.

Linear layers and embeddings of a split module compute in a backward pass only the gradient of
their input and note what is left to do for their weights. A stage peer answers after B and does
W when nobody waits (zero bubble, arXiv 2401.10241): where W costs as much as B, each hop of the
way back takes half as long. Products are added straight into the flat vector of gradient sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from swarmnet.train.flat import spans


@dataclass(frozen=True)
class Spot:
    """Where one parameter stands in a flat vector."""

    span: slice
    shape: torch.Size

    def of(self, flat: Tensor) -> Tensor:
        """The parameter's part of ``flat`` (P,), in its own shape."""
        return flat[self.span].view(self.shape)


Product = Callable[[Tensor], None]
"""A weight gradient left to do: adds itself into its spot of a flat vector (P,)."""


class Sink:
    """Where the layers of one module leave their products while a backward pass runs."""

    def __init__(self) -> None:
        self._products: list[Product] = []

    @contextmanager
    def collect(self) -> Iterator[list[Product]]:
        """The products of the backward pass that runs inside, in the order in which they came."""
        self._products = []
        try:
            yield self._products
        finally:
            self._products = []

    def leave(self, product: Product) -> None:
        self._products.append(product)


def spots(module: nn.Module) -> dict[nn.Parameter, Spot]:
    """The place of every trainable parameter of ``module``; parameters compare by identity."""
    return {parameter: Spot(span, parameter.shape) for parameter, span in spans(module)}


def split(module: nn.Module, sink: Sink) -> None:
    """Give the layers of ``module`` a backward pass of which only B runs; W goes to ``sink``.

    A layer that is not known here keeps its whole backward pass: also right, only later. The
    instances are changed and not their classes, so other modules stay as they are. Gradients
    must be asked for with ``torch.autograd.grad``, with the parameters among its inputs: those
    whose product was left to ``sink`` get none there.
    """
    from transformers.pytorch_utils import Conv1D

    places = spots(module)
    for layer in module.modules():
        if type(layer) is nn.Linear or type(layer) is Conv1D:
            layer.forward = partial(_linear, _Left(layer, places, sink))  # type: ignore[method-assign]
        elif type(layer) is nn.Embedding and _is_plain(layer):
            layer.forward = partial(_embedding, _Left(layer, places, sink))  # type: ignore[method-assign]


class _Left:
    """A split layer: its weights, where their gradients belong, and who is told."""

    def __init__(self, layer: nn.Module, places: dict[nn.Parameter, Spot], sink: Sink) -> None:
        self.weight: nn.Parameter = layer.weight  # type: ignore[assignment]
        self.bias: nn.Parameter | None = getattr(layer, "bias", None)
        self.weight_spot = places.get(self.weight)
        self.bias_spot = places.get(self.bias) if self.bias is not None else None
        # transformers' Conv1D is a linear layer whose matrix stands the other way round.
        self.transposed = not isinstance(layer, nn.Linear)
        self.leave = sink.leave


class _Linear(torch.autograd.Function):
    """``y = x W^T + b``; its backward pass is ``g W`` and notes ``g^T x`` and the sum of ``g``."""

    @staticmethod
    def forward(ctx: Any, left: _Left, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.left = left
        ctx.save_for_backward(x, weight)
        return functional.linear(x, weight.t() if left.transposed else weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, None, None]:
        left: _Left = ctx.left
        x, weight = ctx.saved_tensors
        # What waits for W must hold numbers only: x still knows the whole graph that made it.
        rows, inputs = _rows(gradient), _rows(x.detach())
        if left.weight_spot is not None:
            pair = (inputs, rows) if left.transposed else (rows, inputs)
            left.leave(partial(_add_product, left.weight_spot, *pair))
        if left.bias_spot is not None:
            left.leave(partial(_add_sum, left.bias_spot, rows))
        if not ctx.needs_input_grad[1]:
            return None, None, None, None
        matrix = weight.t() if left.transposed else weight
        return None, (rows @ matrix).view(x.shape), None, None


class _Embedding(torch.autograd.Function):
    """Rows of a table by ids; its backward pass notes which rows get what."""

    @staticmethod
    def forward(ctx: Any, left: _Left, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.left, ctx.ids = left, ids
        return functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        left: _Left = ctx.left
        if left.weight_spot is not None:
            rows = _rows(gradient)
            left.leave(partial(_add_rows, left.weight_spot, ctx.ids.flatten(), rows))
        return None, None, None


def _linear(left: _Left, x: Tensor) -> Tensor:
    result: Tensor = _Linear.apply(left, x, left.weight, left.bias)  # type: ignore[no-untyped-call]
    return result


def _embedding(left: _Left, ids: Tensor) -> Tensor:
    result: Tensor = _Embedding.apply(left, ids, left.weight)  # type: ignore[no-untyped-call]
    return result


def _rows(values: Tensor) -> Tensor:
    """(..., n) -> (rows, n)."""
    return values.reshape(-1, values.shape[-1])


def _is_plain(layer: nn.Embedding) -> bool:
    """Whether its gradient is nothing but a sum of rows."""
    special = layer.padding_idx is not None or layer.max_norm is not None
    return not (special or layer.scale_grad_by_freq or layer.sparse)


def _add_product(spot: Spot, left: Tensor, right: Tensor, flat: Tensor) -> None:
    spot.of(flat).addmm_(left.t(), right)


def _add_sum(spot: Spot, rows: Tensor, flat: Tensor) -> None:
    spot.of(flat).add_(rows.sum(0))


def _add_rows(spot: Spot, ids: Tensor, rows: Tensor, flat: Tensor) -> None:
    spot.of(flat).index_add_(0, ids, rows)


def add_whole(spot: Spot, gradient: Tensor) -> Product:
    """The product of a parameter whose gradient B computed already: norms, positions."""
    return partial(_add_gradient, spot, gradient)


def _add_gradient(spot: Spot, gradient: Tensor, flat: Tensor) -> None:
    spot.of(flat).add_(gradient)
