"""Inner optimizers: how one local step moves a replica's own weights.

Constructed as ``Class(config, parameters)`` with the trainable parameters in the order of the
flat vector theta; ``config.lr`` is the peak rate that the run's schedule scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Inner(Protocol):
    """The part of training that needs no partner. Its state never enters an exchange."""

    def step(self, lr: float) -> None:
        """Move the parameters by their gradients at the scheduled rate ``lr``; clear gradients.

        Gradients that are not finite move nothing: a replica that took them would be lost, and
        its next partners with it.
        """
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The state itself, float32: (P,) each, or scalars, for whoever copies it between steps."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what ``tensors()`` gave.

        Raises:
            ValueError: other names or shapes than ``tensors()`` gives; nothing is changed.
        """
        ...
