"""Outer rules: how what a group agreed on moves a replica's slow weights.

One meeting is split so that late and lost partners keep the swarm's mean where the rule says.
With ``theta`` the snapshot that was sent, own and mean the decoded contributions::

    outer.contribution(theta, out)           # before solo: it may hold the slow weights
    outer.solo(theta, live)                  # own part, at once, whoever answers
    c = outer.correction(mean - own)         # the group's part; sums to zero over the group
    outer.settle(c); live += c               # on time or late

The live weights move by displacements of the snapshot, so inner steps go on meanwhile. A partner
lost after its snapshot costs the correction and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from swarmnet.outer._effort import MAX_EFFORT as MAX_EFFORT

if TYPE_CHECKING:
    from torch import Tensor


class Outer(Protocol):
    """A replica's slow state and its law of motion; all vectors are (P,) and share a dtype."""

    def start(self, theta: Tensor) -> None:
        """Begin at ``theta``: slow weights there, no momentum."""
        ...

    @property
    def sends_theta(self) -> bool:
        """What is sent is the snapshot itself: ``contribution`` is not called."""
        ...

    def contribution(self, theta: Tensor, out: Tensor) -> None:
        """Fill ``out``, (width, P), with what to send for the immutable snapshot ``theta``."""
        ...

    def width(self) -> int:
        """Vectors of P values in a contribution: 1 or 2."""
        ...

    def effort(self, steps: int, step_s: float) -> int:
        """What a contribution weighs, from 0 (it only listens) to 2^32 - 1.

        ``steps``: inner steps behind its displacement; ``step_s``: seconds that one takes, 0
        while nobody knows.
        """
        ...

    def shares(self, works: Sequence[int]) -> list[list[float]]:
        """Each member's weight in the group's mean, for each row of a contribution.

        ``works``: each member's effort.
        """
        ...

    def solo(self, theta: Tensor, live: Tensor) -> None:
        """The outer step of a group of one: moves the own state, and ``live`` (P,) with it."""
        ...

    def correction(self, pull: Tensor) -> Tensor:
        """What the group changes about the solo step: (n,) from (width, n) of any columns.

        ``pull`` is the group's mean minus the own contribution, both of decoded payloads: then
        the corrections of a group's members sum to zero whatever a codec lost. It may be
        overwritten. No state is read, so a correction may come late.
        """
        ...

    def settle(self, correction: Tensor) -> None:
        """Take a correction into the own state; theta's displacement is ``correction`` itself."""
        ...

    def rest(self, theta: Tensor) -> None:
        """Move ``theta`` (P,) to the slow weights: no displacement is left to be counted."""
        ...

    def unshared(self, theta: Tensor, out: Tensor) -> None:
        """Fill ``out``, (P,), with what ``theta`` holds of own work that the next step would move.

        Added to the weights of another replica it is a part of that one's next step, so the sum
        of all slow weights goes where it would have gone with this replica's own step.
        """
        ...

    def inheritance(self, leaver: int, heir: int) -> float:
        """How much of a leaver's ``unshared`` its heir adds, by the efforts of both."""
        ...

    @property
    def nbytes(self) -> int:
        """Of the state in memory, also of what does not travel."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The state itself, each (P,), for whoever copies it between two steps."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what ``tensors()`` gave.

        Raises:
            ValueError: other names than ``tensors()`` gives, or unequal shapes.
        """
        ...
