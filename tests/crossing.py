"""A cut inside one process: what a peer computes that holds both of its sides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swarmnet.boundary import Boundary


def crossed(boundary: Boundary, sent: Tensor, generator: torch.Generator) -> Tensor:
    """``sent`` (B, T, features) as it arrives on the other side of the wire.

    Its gradient arrives as over the wire too. So coding counts as the identity when gradients are
    taken (straight-through), and is applied to them. Raises PayloadError if it is not finite.
    """
    result: Tensor = _Crossing.apply(sent, boundary, generator)  # type: ignore[no-untyped-call]
    return result


class _Crossing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sent: Tensor, boundary: Boundary, generator: torch.Generator) -> Tensor:
        ctx.boundary, ctx.generator = boundary, generator
        return _arrived(boundary, sent, generator)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _arrived(ctx.boundary, gradients[0], ctx.generator), None, None


def _arrived(boundary: Boundary, values: Tensor, generator: torch.Generator) -> Tensor:
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    arrived = boundary.decode(memoryview(boundary.encode(values, generator)), out)
    return out if arrived is out else out.copy_(arrived)  # else it may lie in the sender's memory
