"""Reductions: what the members of one group contributed -> the one vector all continue from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Reduce(Protocol):
    """How a group agrees without talking: every member computes this and gets the same bits."""

    def combine(self, contributions: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """One vector (W,) out of n decoded contributions (W,), n >= 1.

        The order is canonical (sorted by peer id), own contribution included, because float
        sums depend on it. Weights are >= 0; a weight of 0 is a member that listens only, and
        its contribution does not reach the result. The inputs are not modified; finite inputs
        give a finite result.

        Raises:
            ValueError: no contributions, another number of weights, or no positive weight.
        """
        ...

    def pull(
        self, own: Tensor, others: Sequence[Tensor], weights: Sequence[float], out: Tensor
    ) -> None:
        """Fill ``out`` with where ``combine`` would move ``own``: the result minus ``own``.

        ``weights`` begin with the own one. The pulls of a pair are exact opposites. ``out`` is
        none of the inputs. Raises ValueError as ``combine``.
        """
        ...
