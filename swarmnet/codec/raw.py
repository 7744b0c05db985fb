"""Nothing lost: the vector's own floats, 4 bytes a value (8 with ``double``)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from swarmnet.codec._buffers import borrow, lend, require_finite, require_size, to_host
from swarmnet.config import Section


class Raw:
    """The codec that sends weights as they are; on a CPU the payload is the vector itself."""

    class Config(Section):
        double: bool = Field(False, description="float64 instead of float32 on the wire")

    def __init__(self, config: Config) -> None:
        self.config = config
        self.as_is = not config.double
        self._dtype = torch.float64 if config.double else torch.float32

    def encode(self, vector: Tensor, generator: torch.Generator) -> memoryview:
        return lend(to_host(vector.detach().to(self._dtype).contiguous()))

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        require_size(payload, self.nbytes(out.numel()))
        values = borrow(payload, self._dtype)
        require_finite(values, out.dtype)
        in_place = values.dtype == out.dtype and out.device.type == "cpu"
        return values if in_place else out.copy_(values)

    def nbytes(self, numel: int) -> int:
        return numel * self._dtype.itemsize
