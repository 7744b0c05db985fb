"""Two bytes a value: float32 with 8 bits of mantissa, rounded to the nearest even."""

from __future__ import annotations

import torch
from torch import Tensor

from swarmnet.codec._buffers import borrow, lend, require_finite, require_size, to_host
from swarmnet.config import Section


class BFloat16:
    """The codec that halves raw: a relative error of at most 2^-8 a value, zero-safe.

    Magnitudes above bfloat16's largest, 3.39e38, become infinite and are refused on decoding.
    """

    class Config(Section):
        pass

    as_is = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def encode(self, vector: Tensor, generator: torch.Generator) -> memoryview:
        return lend(to_host(vector.detach().to(torch.bfloat16).contiguous()))

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        require_size(payload, self.nbytes(out.numel()))
        values = borrow(payload, torch.bfloat16)
        require_finite(values, out.dtype)
        return out.copy_(values)

    def nbytes(self, numel: int) -> int:
        return 2 * numel
