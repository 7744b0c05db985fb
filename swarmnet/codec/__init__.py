"""Codecs: a flat vector of weights or displacements <-> the payload bytes of one exchange.

A codec may lose precision but never agreement: the sender decodes its own payload too and
computes with that, so both sides of a meeting use the same numbers and the mean law holds
whatever was lost. State stays in float32 (float64 in tests of laws) on both ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Codec(Protocol):
    """What turns a vector into the bytes that a partner receives, and back."""

    @property
    def as_is(self) -> bool:
        """The payload of a float32 vector in CPU memory is that memory: coding is free."""
        ...

    def encode(self, vector: Tensor, generator: torch.Generator) -> bytes | memoryview:
        """The payload of ``vector``: (P,) with P >= 1, float32 or float64, any device, finite.

        The result may share memory with ``vector``, which therefore must not change while the
        payload is under way. Randomness comes from ``generator`` alone. What is not finite is
        encoded as it is: every decoder, the sender's own included, refuses it.
        """
        ...

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        """The values, (P,) in the dtype of ``out`` and on its device; read only.

        They are in ``out``, which is contiguous, or in the payload's own memory. All checks come
        before the first write: after an error ``out`` is untouched.

        Raises:
            PayloadError: not exactly ``nbytes(P)`` bytes, or values that would not be finite.
        """
        ...

    def nbytes(self, numel: int) -> int:
        """The exact payload size of a vector of ``numel`` values, in bytes."""
        ...
