"""Plain gossip averaging: theta <- the group's mean of theta.

It is NoLoCo's rule with alpha = 0 and beta = gamma = 1, which needs no slow state for meetings.
Where the last one left the replica is remembered all the same: what was added since is what a
leaver hands over.

With ``by_rate`` a replica weighs as much as the steps that it takes per second, so that one which
holds old weights, because it is slow, follows the others more than it holds them back. What a
meeting keeps is then the mean of replicas weighed in that way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from swarmnet.config import Section
from swarmnet.outer._effort import MAX_EFFORT, MAX_RATIO

if TYPE_CHECKING:
    from torch import Tensor


class Average:
    """The outer rule without memory: a meeting is a mean, and alone nothing happens."""

    class Config(Section):
        by_rate: bool = Field(False, description="weigh replicas by their steps per second")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._met: Tensor | None = None
        """Where the last meeting left theta, without the steps that were taken meanwhile."""

    def start(self, theta: Tensor) -> None:
        self._met = theta.detach().clone()

    @property
    def sends_theta(self) -> bool:
        return True

    def contribution(self, theta: Tensor, out: Tensor) -> None:
        out[0] = theta

    def width(self) -> int:
        return 1

    def effort(self, steps: int, step_s: float) -> int:
        """Steps per thousand seconds; 0, the least weight, before the first pace is known."""
        return min(round(1000 / step_s), MAX_EFFORT) if step_s else 0

    def shares(self, works: Sequence[int]) -> list[list[float]]:
        if not self.config.by_rate or not any(works):
            return [[1.0] * len(works)]
        least = max(works) / MAX_RATIO
        return [[max(work, least) for work in works]]

    def solo(self, theta: Tensor, live: Tensor) -> None:
        self._reference().copy_(theta)

    def correction(self, pull: Tensor) -> Tensor:
        return pull[0]

    def settle(self, correction: Tensor) -> None:
        self._reference().add_(correction)

    def unshared(self, theta: Tensor, out: Tensor) -> None:
        torch.sub(theta, self._reference(), out=out)

    def inheritance(self, leaver: int, heir: int) -> float:
        """All of it; by rate as much as keeps the weighed mean, yet no more than there is."""
        if not self.config.by_rate:
            return 1.0
        [(theirs, mine)] = self.shares([leaver, heir])
        return min(1.0, theirs / mine)

    @property
    def nbytes(self) -> int:
        met = self._reference()
        return met.numel() * met.element_size()

    def rest(self, theta: Tensor) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            raise ValueError(f"plain averaging has no state, yet was given {sorted(tensors)}")

    def _reference(self) -> Tensor:
        if self._met is None:
            raise RuntimeError("start() comes before any outer step")
        return self._met
