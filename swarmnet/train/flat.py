"""A replica's weights as one vector: what is exchanged, averaged, stored and handed to a joiner."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def flatten_parameters(module: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """Moves every trainable parameter into one vector and makes it a view of its part there.

    Parameters keep their identity, so optimizers and tied weights stay right; a tied one stands in
    the vector once. Move the module to its device first, not after.

    Returns:
        (P,) of ``dtype`` on the parameters' device; writing to it changes the weights.

    Raises:
        TypeError: a parameter of another type than ``dtype``. The state of a run is fp32
            everywhere; laws are tested in float64.
        ValueError: nothing to train.
    """
    parameters = trainable_parameters(module)
    if not parameters:
        raise ValueError("the module has no trainable parameter")
    if any(parameter.dtype != dtype for parameter in parameters):
        raise TypeError(f"trainable parameters must be {dtype}".replace("torch.", ""))
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    for parameter, span in spans(module):
        parameter.data = flat[span].view(parameter.shape)
    return flat


def spans(module: nn.Module) -> Iterator[tuple[nn.Parameter, slice]]:
    """Every trainable parameter with its part of the vector, in the vector's order."""
    offset = 0
    for parameter in trainable_parameters(module):
        yield parameter, slice(offset, offset + parameter.numel())
        offset += parameter.numel()


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """In the vector's order: that of registration, tied ones once."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def layout_hash(module: nn.Module) -> str:
    """32 hex digits over names and shapes: two vectors mean the same only when these agree."""
    lines = (
        f"{name} {tuple(parameter.shape)}\n"
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]
