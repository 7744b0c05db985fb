"""The narrow place without weights of its own on the sender's side: maxout.

LayerNorm -> the largest of each ``c`` adjacent features -> LayerNorm on the sender's side, Linear
d/c -> d on the receiver's (SWARM, appendix on compression). For models trained from scratch.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from swarmnet.boundary._narrow import Widen, narrowed
from swarmnet.boundary._wire import Coded, CodedConfig


class Maxout(Coded):
    """Sends ``d / c`` features a token, each the largest of its group; the gradient has as many."""

    class Config(CodedConfig):
        c: int = Field(4, ge=2, description="adjacent features that one value stands for")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def features(self, width: int) -> int:
        return narrowed(width, self.config.c)

    def sender(self, width: int, vocab: int) -> nn.Module:
        return Largest(width, self.config.c)

    def receiver(self, width: int, vocab: int) -> nn.Module:
        return Widen(width, self.config.c)


class Largest(nn.Module):
    """Sender: (B, T, d) -> (B, T, d/c)."""

    def __init__(self, width: int, c: int) -> None:
        super().__init__()
        self._groups = (narrowed(width, c), c)
        self.norm_in = nn.LayerNorm(width)
        self.norm_out = nn.LayerNorm(width // c)

    def forward(self, hidden: Tensor, ids: Tensor) -> Tensor:
        groups: Tensor = self.norm_in(hidden).unflatten(-1, self._groups)
        largest: Tensor = self.norm_out(groups.amax(dim=-1))
        return largest
