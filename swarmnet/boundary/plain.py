"""The boundary for any existing model: activations cross as they are, or through a codec."""

from __future__ import annotations

import torch
from pydantic import field_validator
from torch import Tensor, nn

from swarmnet.boundary._wire import Untouched, Wire
from swarmnet.config import Choice, Section


class Plain:
    """Changes nothing of the model; ``codec`` says in which form its activations travel."""

    class Config(Section):
        codec: Choice = Choice(name="raw")

        @field_validator("codec")
        @classmethod
        def _codec_exists(cls, value: Choice) -> Choice:
            value.config("codec")
            return value

    def __init__(self, config: Config) -> None:
        self.config = config
        self._wire = Wire(config.codec)

    def features(self, width: int) -> int:
        return width

    def sender(self, width: int, vocab: int) -> nn.Module:
        return Untouched()

    def receiver(self, width: int, vocab: int) -> nn.Module:
        return Untouched()

    def constrain(self, stage: nn.Module, first: bool, last: bool) -> None:
        return

    def encode(self, values: Tensor, generator: torch.Generator) -> bytes | memoryview:
        return self._wire.encode(values, generator)

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        return self._wire.decode(payload, out)

    def max_nbytes(self, tokens: int, width: int) -> int:
        return self._wire.nbytes(tokens * width)
