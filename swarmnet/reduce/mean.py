"""The weighted mean: the reduction under which the mean law is exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from swarmnet.config import Section

SPAN = 1 << 16


class Mean:
    """Trusts every member by its weight alone."""

    class Config(Section):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def combine(self, contributions: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        total = _total(len(contributions), weights)
        # Shares first: a plain sum of finite values can overflow. And no fused multiply-add:
        # it rounds otherwise than multiply and add, on some machines and not on others.
        mean = contributions[0] * (weights[0] / total)
        for contribution, weight in zip(contributions[1:], weights[1:], strict=True):
            # In spans that stay in the cache: a temporary of the whole size costs more than this.
            for start in range(0, len(mean), SPAN):
                span = slice(start, start + SPAN)
                mean[span] += contribution[span] * (weight / total)
        return mean

    def pull(
        self, own: Tensor, others: Sequence[Tensor], weights: Sequence[float], out: Tensor
    ) -> None:
        total = _total(1 + len(others), weights)
        if not others:
            out.zero_()
            return
        for start in range(0, len(out), SPAN):
            span = slice(start, start + SPAN)
            mine, place = own[span], out[span]
            torch.sub(others[0][span], mine, out=place).mul_(weights[1] / total)
            for other, weight in zip(others[1:], weights[2:], strict=True):
                place.add_((other[span] - mine).mul_(weight / total))


def _total(members: int, weights: Sequence[float]) -> float:
    total = sum(weights)
    if members != len(weights) or min(weights, default=-1.0) < 0 or total <= 0:
        raise ValueError(f"{members} contributions do not go with {weights=}")
    return total
