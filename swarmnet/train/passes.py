"""One microbatch at the door of a stage, and its way through: forward, and B when a gradient came.

Several of one length go as one batch. They share a graph then, and a batch whose gradients come
together costs one backward pass; members that come without the others are computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor
from torch.nn import functional

from swarmnet.errors import SampleRefused
from swarmnet.train.sides import Graph, Side
from swarmnet.train.split import Product, add_whole


@dataclass(frozen=True)
class Arrival:
    """What a stage gets of one microbatch. The tensors are the stage's own from here on."""

    sample: int
    """The 64-bit id under which its gradient counts."""
    tokens: Tensor
    """(B, T + 1) int64: inputs without the last column, targets without the first."""
    received: Tensor | None = None
    """(B, T, f); None at the first stage."""

    @property
    def inputs(self) -> Tensor:
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Tensor:
        return self.tokens[:, 1:]

    def fits(self, first: bool) -> bool:
        """Whether the shapes are those of a microbatch at such a stage, and the numbers finite."""
        shape = self.tokens.shape
        if len(shape) != 2 or shape[0] < 1 or shape[1] < 2 or first != (self.received is None):
            return False
        if self.received is None:
            return True
        fits = self.received.ndim == 3 and self.received.shape[:2] == self.inputs.shape
        return fits and self.received.numel() > 0 and finite(self.received)


@dataclass(eq=False)
class Pass:
    """One microbatch's forward pass. Whoever holds it holds the activations of its batch."""

    arrival: Arrival
    version: int
    """Of the weights that computed it: the backward pass needs the same ones."""
    output: Tensor | None
    """(B, T, f) without a graph: what travels on. None at the last stage."""
    loss: float
    """At the last stage the sum over its targets in nats, else 0."""
    side: Side
    graph: Graph | None
    """None when its batch is used up: the next backward pass begins with a forward."""
    place: int
    """Its number among the members of ``graph``."""
    counted: bool = False
    """Its gradient is in the sums, or waits for W."""

    @property
    def sample(self) -> int:
        return self.arrival.sample

    @property
    def tokens(self) -> int:
        """How many targets its gradient is summed over."""
        return self.arrival.targets.numel()

    @property
    def stale(self) -> bool:
        """Its weights are gone, and with them the way to its gradient."""
        return self.side.version != self.version

    def takes(self, gradient: Tensor | None) -> bool:
        """Whether ``gradient`` has the shape of the output and is finite."""
        if gradient is None or self.output is None:
            return gradient is None and self.output is None
        return gradient.shape == self.output.shape and finite(gradient)


def compute(side: Side, members: Sequence[Arrival]) -> Graph:
    """Forward of microbatches of one length as one batch.

    Raises:
        SampleRefused: what came out is not finite; other members of the batch can go again.
    """
    inputs = _joined([member.inputs for member in members], side.vector)
    received = None
    if not side.first:
        parts = [member.received for member in members if member.received is not None]
        received = _joined(parts, side.vector).detach().requires_grad_()
    with torch.enable_grad():
        root = side.module(inputs, received)
        if side.last:
            root = _losses(root, members)
    outputs = _parts(root.detach(), members, side.last)
    _refuse_broken("what this stage computed is not finite", outputs, members)
    return side.keep(Graph(root, received, len(members)))


def passes_of(side: Side, version: int, members: Sequence[Arrival], graph: Graph) -> list[Pass]:
    """Each member's share of what was computed."""
    outputs = _parts(graph.root.detach(), members, side.last)
    return [
        Pass(
            member,
            version,
            output=None if side.last else output,
            loss=float(output) if side.last else 0.0,
            side=side,
            graph=graph,
            place=place,
        )
        for place, (member, output) in enumerate(zip(members, outputs, strict=True))
    ]


def differentiate(
    batch: Sequence[Pass], graph: Graph, gradients: Sequence[Tensor | None]
) -> tuple[list[Product], dict[Pass, Tensor]]:
    """B of a whole batch: what is left to do as W, and the gradients of what was received.

    Raises:
        SampleRefused: a gradient that is not finite, although what came was.
    """
    side, members = batch[0].side, [p.arrival for p in batch]
    given = [gradient for gradient in gradients if gradient is not None]
    seed = _joined(given, graph.root) if given else torch.ones_like(graph.root)
    received = [] if graph.received is None else [graph.received]
    sources = (*received, *side.spots)
    try:
        with side.sink.collect() as products:
            found = torch.autograd.grad(graph.root, sources, seed, allow_unused=True)
    finally:
        graph.free()
    results: dict[Pass, Tensor] = {}
    if received:
        parts = _parts(found[0], members, False)
        _refuse_broken("the gradient became infinite here", parts, members)
        results = dict(zip(batch, parts, strict=True))
    whole = zip(side.spots.values(), found[len(received) :], strict=True)
    products += [add_whole(spot, gradient) for spot, gradient in whole if gradient is not None]
    return products, results


def finite(values: Tensor) -> bool:
    """In one pass without a temporary, because every boundary is looked through twice."""
    return all(isfinite(bound) for bound in torch.aminmax(values))


def _losses(logits: Tensor, members: Sequence[Arrival]) -> Tensor:
    """(members,): the cross entropy of each one, summed over its targets."""
    targets = _joined([member.targets for member in members], logits)
    each = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    parts = torch.split(each, [member.targets.numel() for member in members])
    return torch.stack([part.sum() for part in parts])


def _parts(whole: Tensor, members: Sequence[Arrival], by_member: bool) -> tuple[Tensor, ...]:
    """Each one's own part of a batch: views of its rows, or its one value."""
    if by_member:
        return whole.unbind()
    return torch.split(whole, [member.tokens.shape[0] for member in members])


def _joined(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """One batch of them on the device of ``like``, floats in its type."""
    whole = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    return whole.to(like.device, like.dtype if whole.is_floating_point() else whole.dtype)


def _refuse_broken(what: str, parts: Sequence[Tensor], members: Sequence[Arrival]) -> None:
    pairs = zip(members, parts, strict=True)
    if broken := tuple(member.sample for member, part in pairs if not finite(part)):
        raise SampleRefused(what, broken)
