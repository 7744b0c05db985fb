"""The columns that matter: features of small norm over the whole microbatch are not sent.

Payload: one bit a feature, which says whether it is there (little endian, ``ceil(d / 8)`` bytes),
then the kept columns, (tokens, kept), through the codec. The rest arrives as zeros. A gradient
chooses its own columns (column masking, "Beyond Top-K"). All tokens have a say in the choice, also
those behind the token at hand, which a causal model should not see: little, but not nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from swarmnet.boundary._wire import Coded, CodedConfig
from swarmnet.errors import PayloadError


class ColumnMask(Coded):
    """Changes nothing of the model and loses its weakest features; every payload has one size."""

    class Config(CodedConfig):
        keep: float = Field(0.1, gt=0, le=1, description="share of the features that is sent")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def encode(self, values: Tensor, generator: torch.Generator) -> bytes:
        columns = values.detach().reshape(-1, values.shape[-1])
        # What is not a number counts as the largest: it is sent, and every decoder refuses it.
        strongest = columns.square().sum(0).topk(self._kept(columns.shape[1])).indices
        mask = torch.zeros(columns.shape[1], dtype=torch.bool, device=columns.device)
        mask[strongest] = True
        head = np.packbits(mask.cpu().numpy(), bitorder="little").tobytes()
        return b"".join((head, super().encode(columns[:, mask], generator)))

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        width = out.shape[-1]
        tokens, kept = out.numel() // width, self._kept(width)
        if payload.nbytes != self.max_nbytes(tokens, width):
            raise PayloadError(
                f"payload of {payload.nbytes} bytes where {self.max_nbytes(tokens, width)} belong"
            )
        head = -(-width // 8)
        bits = np.unpackbits(np.frombuffer(payload[:head], np.uint8), bitorder="little")
        places = torch.from_numpy(bits.nonzero()[0]).to(out.device)
        if len(places) != kept or int(places[-1]) >= width:
            raise PayloadError(f"payload names {len(places)} of {width} columns, not {kept}")
        columns = super().decode(payload[head:], out.new_empty(tokens, kept))
        out.zero_().view(tokens, width)[:, places] = columns
        return out

    def max_nbytes(self, tokens: int, width: int) -> int:
        return -(-width // 8) + self._codec.nbytes(tokens * self._kept(width))

    def _kept(self, width: int) -> int:
        return max(1, round(self.config.keep * width))
