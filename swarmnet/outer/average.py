"""Plain gossip averaging: theta <- the group's mean of theta.

It is NoLoCo's rule with alpha = 0 and beta = gamma = 1, which needs no slow state at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    @property
    def sends_theta(self) -> bool:
        return True

    def contribution(self, theta: Tensor, out: Tensor) -> None:
        out[0] = theta

    def width(self) -> int:
        return 1

    def shares(self, works: Sequence[int]) -> list[list[float]]:
        return [[1.0] * len(works)]

    def solo(self, theta: Tensor, live: Tensor) -> None:
        pass

    def correction(self, pull: Tensor) -> Tensor:
        return pull[0]

    def settle(self, correction: Tensor) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            raise ValueError(f"plain averaging has no state, yet was given {sorted(tensors)}")
