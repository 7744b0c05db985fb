"""Boundaries: what crosses the cut between two stages, forward and backward.

A boundary is a part of the model on either side (it may change what is computed, and be trained)
and a wire form. Activations are (B, T, d); what travels is (B, T, features(d)) as bytes. Its
gradient travels the other way in the same form. Token ids never travel as floats: they go beside
the payload as int32, four bytes a token, and whoever needs them gets them as a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Sender(Protocol):
    """The last module of a stage that is not the last stage."""

    def __call__(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """(B, T, d) activations and (B, T) int64 ids -> (B, T, features) of what travels."""
        ...


class Receiver(Protocol):
    """The first module of a stage that is not the first stage."""

    def __call__(self, received: Tensor, ids: Tensor) -> Tensor:
        """(B, T, features) as it travelled and (B, T) int64 ids -> (B, T, d) activations."""
        ...


class Boundary(Protocol):
    """Built as ``Class(config)``; every peer of the run builds the same."""

    def features(self, width: int) -> int:
        """Values per token on the wire for ``width`` features. Raises ConfigError if impossible."""
        ...

    def sender(self, width: int, vocab: int) -> nn.Module:
        """A new ``Sender``; its trainable parameters are initialised from torch's generator."""
        ...

    def receiver(self, width: int, vocab: int) -> nn.Module:
        """A new ``Receiver``."""
        ...

    def constrain(self, stage: nn.Module, first: bool, last: bool) -> None:
        """Bring a stage's weights to where this boundary wants them, in place.

        Called whenever they changed: when built, after each step, after averaging that lost
        precision. What it constrains it finds by type and by the names that ``transformers`` gives.
        """
        ...

    def encode(self, values: Tensor, generator: torch.Generator) -> bytes | memoryview:
        """The payload of (B, T, features) activations or gradients, any device.

        The payload may share memory with ``values``. What is not finite is encoded as it is.
        """
        ...

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        """The values in the shape, dtype and on the device of ``out``; read only.

        They are in ``out``, which is contiguous, or in the payload's own memory. After an
        error ``out`` is untouched.

        Raises:
            PayloadError: not a payload of this shape, or values that are not finite.
        """
        ...

    def max_nbytes(self, tokens: int, width: int) -> int:
        """The largest payload of ``tokens`` tokens: what a reader makes room for."""
        ...
