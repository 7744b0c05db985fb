"""What boundaries share: the model unchanged, and one of the run's codecs on the wire."""

from __future__ import annotations

import torch
from pydantic import field_validator
from torch import Tensor, nn

from swarmnet.codec import Codec
from swarmnet.config import Choice, Section


class Untouched(nn.Module):
    """A sender and receiver in one: what comes in goes out."""

    def forward(self, hidden: Tensor, ids: Tensor) -> Tensor:
        return hidden


class CodedConfig(Section):
    """The option that all boundaries have."""

    codec: Choice = Choice(name="raw")

    @field_validator("codec")
    @classmethod
    def _codec_exists(cls, value: Choice) -> Choice:
        value.config("codec")
        return value


class Coded:
    """A boundary that changes nothing of the model; others override what they change."""

    def __init__(self, config: CodedConfig) -> None:
        self._codec: Codec = config.codec.build("codec")

    def features(self, width: int) -> int:
        return width

    def sender(self, width: int, vocab: int) -> nn.Module:
        return Untouched()

    def receiver(self, width: int, vocab: int) -> nn.Module:
        return Untouched()

    def constrain(self, stage: nn.Module, first: bool, last: bool) -> None:
        return

    def encode(self, values: Tensor, generator: torch.Generator) -> bytes | memoryview:
        return self._codec.encode(values.detach().reshape(-1), generator)

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        return self._codec.decode(payload, out.view(-1)).view(out.shape)

    def max_nbytes(self, tokens: int, width: int) -> int:
        return self._codec.nbytes(tokens * self.features(width))
