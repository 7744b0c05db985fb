"""What boundaries share: a codec over a flat view, and the module that changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swarmnet.codec import Codec
from swarmnet.config import Choice


class Untouched(nn.Module):
    """A sender and receiver in one: what comes in goes out."""

    def forward(self, hidden: Tensor, ids: Tensor) -> Tensor:
        return hidden


class Wire:
    """Tensors of any shape through one of the run's codecs."""

    def __init__(self, choice: Choice) -> None:
        self._codec: Codec = choice.build("codec")

    def encode(self, values: Tensor, generator: torch.Generator) -> bytes | memoryview:
        return self._codec.encode(values.detach().reshape(-1), generator)

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        """Raises PayloadError."""
        return self._codec.decode(payload, out.view(-1)).view(out.shape)

    def nbytes(self, numel: int) -> int:
        return self._codec.nbytes(numel)
