"""Gradient sums with what is in them: what a stage peer brings to the averaging of its stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sums:
    """Gradients summed over tokens, and exactly the samples whose weight gradients are in."""

    vector: Tensor
    """(P,) of the weights' type."""
    tokens: int
    samples: tuple[int, ...]
    """In the order in which they were counted."""


class Accumulators:
    """Two vectors that take turns: one gathers while the other one is in a round of averaging.

    Nothing is allocated after the beginning.
    """

    def __init__(self, theta: Tensor) -> None:
        self._gathering = torch.zeros_like(theta)
        self._resting = torch.zeros_like(theta)
        self._tokens = 0
        self._samples: list[int] = []
        self._out: Sums | None = None

    @property
    def vector(self) -> Tensor:
        """(P,) where sums are gathered now; whoever adds to it says so with ``count``."""
        return self._gathering

    @property
    def tokens(self) -> int:
        return self._tokens

    @property
    def samples(self) -> tuple[int, ...]:
        return tuple(self._samples)

    def count(self, tokens: int, samples: Iterable[int]) -> None:
        self._tokens += tokens
        self._samples.extend(samples)

    @property
    def out(self) -> Sums | None:
        """The sums that were handed out and came not back yet."""
        return self._out

    def freeze(self) -> Sums:
        """Hand out what was gathered; gathering goes on from zero in the other vector.

        Raises:
            RuntimeError: earlier sums are still out.
        """
        if self._out is not None:
            raise RuntimeError("the sums before these are still out: put them back or discard them")
        self._out = Sums(self._gathering, self._tokens, self.samples)
        self._gathering, self._resting = self._resting, self._gathering
        self._tokens, self._samples = 0, []
        return self._out

    def put_back(self, sums: Sums) -> None:
        """The round of ``sums`` came to nothing: they count again. Nobody may have changed them.

        Raises:
            ValueError: these are not the sums that are out.
        """
        self._check(sums)
        self._gathering += sums.vector
        self._tokens += sums.tokens
        self._samples[:0] = sums.samples
        self.discard(sums)

    def discard(self, sums: Sums) -> None:
        """``sums`` are in a step, or lost: nobody reads them any more, their vector is free.

        Raises:
            ValueError: these are not the sums that are out.
        """
        self._check(sums)
        self._resting.zero_()
        self._out = None

    def drop(self) -> None:
        """Forget what was gathered. Sums that are out stay out."""
        self._gathering.zero_()
        self._tokens, self._samples = 0, []

    def _check(self, sums: Sums) -> None:
        if sums is not self._out:
            raise ValueError("these sums are not out")
