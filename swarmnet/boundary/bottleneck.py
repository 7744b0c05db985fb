"""A learned narrow place at each cut, for models that are trained from scratch with it.

LayerNorm -> Linear d -> d/c -> LayerNorm on the sender's side, Linear d/c -> d on the receiver's,
trained like the rest of the model (SWARM, appendix on compression). The second norm brings the
features to one scale, which is what a blockwise codec wants.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from swarmnet.boundary._narrow import Widen, narrowed
from swarmnet.boundary._wire import Coded, CodedConfig


class Bottleneck(Coded):
    """Sends ``d / c`` learned features a token; the gradient has as many."""

    class Config(CodedConfig):
        c: int = Field(4, ge=2, description="features of the model over features on the wire")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def features(self, width: int) -> int:
        return narrowed(width, self.config.c)

    def sender(self, width: int, vocab: int) -> nn.Module:
        return Squeeze(width, self.config.c)

    def receiver(self, width: int, vocab: int) -> nn.Module:
        return Widen(width, self.config.c)


class Squeeze(nn.Module):
    """Sender: (B, T, d) -> (B, T, d/c)."""

    def __init__(self, width: int, c: int) -> None:
        super().__init__()
        features = narrowed(width, c)
        self.norm_in = nn.LayerNorm(width)
        self.linear = nn.Linear(width, features)
        self.norm_out = nn.LayerNorm(features)

    def forward(self, hidden: Tensor, ids: Tensor) -> Tensor:
        squeezed: Tensor = self.norm_out(self.linear(self.norm_in(hidden)))
        return squeezed
