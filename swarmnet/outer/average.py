"""Plain gossip averaging: theta <- the group's mean of theta.

It is NoLoCo's rule with alpha = 0 and beta = gamma = 1, which needs no slow state at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from swarmnet.config import Section

if TYPE_CHECKING:
    from torch import Tensor


class Average:
    """The outer rule without memory: a meeting is a mean, and alone nothing happens."""

    class Config(Section):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def start(self, theta: Tensor) -> None:
        pass

    def contribution(self, theta: Tensor) -> Tensor:
        return theta

    def width(self) -> int:
        return 1

    def solo(self, theta: Tensor) -> Tensor | None:
        return None

    def correction(self, own: Tensor, mean: Tensor) -> Tensor:
        return mean - own

    def settle(self, correction: Tensor) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            raise ValueError(f"plain averaging has no state, yet was given {sorted(tensors)}")
