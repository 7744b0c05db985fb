"""Outer rules: how what a group agreed on moves a replica's slow weights.

One meeting is split so that late and lost partners keep the swarm's mean where the rule says.
With ``theta`` the snapshot that was sent, own and mean the decoded contributions::

    sent = outer.contribution(theta)         # before solo: it may hold the slow weights
    moved = outer.solo(theta)                # own part, at once, whoever answers
    c = outer.correction(own, mean)          # the group's part; sums to zero over the group
    outer.settle(c)                          # on time or late

The live weights move by ``moved`` and by ``c``, as displacements of the snapshot, so inner
steps go on meanwhile. A partner lost after its snapshot costs the correction and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Outer(Protocol):
    """A replica's slow state and its law of motion; all vectors are (P,) and share a dtype."""

    def start(self, theta: Tensor) -> None:
        """Begin at ``theta``: slow weights there, no momentum."""
        ...

    def contribution(self, theta: Tensor) -> Tensor:
        """What to send for the immutable snapshot ``theta``: (width * P,), maybe ``theta``."""
        ...

    def width(self) -> int:
        """Vectors of P values in a contribution: 1 or 2."""
        ...

    def solo(self, theta: Tensor) -> Tensor | None:
        """The outer step of a group of one: moves the own state.

        Returns the displacement of theta, (P,), or None where that is zero.
        """
        ...

    def correction(self, own: Tensor, mean: Tensor) -> Tensor:
        """What the group changes about the solo step: (P,) from two (width * P,).

        Both come from decoded payloads, the own one too: then the corrections of a group's
        members sum to zero whatever a codec lost. It reads no state, so it may come late.
        """
        ...

    def settle(self, correction: Tensor) -> None:
        """Take a correction into the own state; theta's displacement is ``correction`` itself."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The state for checkpoints and joiners, each (P,); not modified by later steps."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what ``tensors()`` gave.

        Raises:
            ValueError: other names than ``tensors()`` gives, or unequal shapes.
        """
        ...
