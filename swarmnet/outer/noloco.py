"""NoLoCo's outer step (arXiv 2506.10911, eqs. 1, 2 and 32, with the sign of eq. 32).

With ``Delta = theta - phi`` (downhill) and the group means D of Delta and P of phi::

    delta <- alpha * delta + beta * D - gamma * (phi - P)
    phi   <- phi + delta;   theta <- phi

It is heavy ball, not look-ahead Nesterov. Split for meetings that end late or never: the solo
step uses the own Delta for D and the own phi for P, and the correction

    c = beta * (D - Delta) - gamma * (phi - P)

is added to delta and phi when the partner's payload is there. With gamma equal to beta this is
``beta * (mean of theta - theta)``, so sending theta alone is exact and halves the bytes.

Stability. Without gradients, under random pairs of N replicas, the distance between replicas
shrinks if and only if ``0 < gamma < 2 (1 - alpha^2) / (1 - alpha / (N - 1))``; the bound here
is the one for N to infinity. (The paper's interval allows alpha 0.9 with gamma 1, which grows.)
From alpha 0.8 on the legal gammas are small and the momentum would carry every disagreement on
for many meetings, so there corrections move phi only and never enter delta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from pydantic import Field, model_validator

from swarmnet.config import Section

if TYPE_CHECKING:
    from torch import Tensor

HIGH_MOMENTUM = 0.8


class NoLoCo:
    """Slow weights phi with momentum delta, kept near the other replicas' by pair meetings."""

    class Config(Section):
        alpha: float = Field(0.5, ge=0, lt=1, description="outer momentum")
        beta: float = Field(0.7, gt=0, allow_inf_nan=False, description="outer learning rate")
        gamma: float = Field(0.7, allow_inf_nan=False, description="strength of the consensus")
        no_consensus: bool = Field(False, description="really run with gamma = 0")

        @model_validator(mode="after")
        def _is_stable(self) -> Self:
            edge = 2 * (1 - self.alpha**2)
            if self.no_consensus:
                if self.gamma != 0:
                    raise ValueError("no_consensus = true goes with gamma = 0 only")
            elif not 0 < self.gamma < edge:
                raise ValueError(
                    f"gamma = {self.gamma:g} does not keep replicas together: with alpha = "
                    f"{self.alpha:g} it must be inside 0 < gamma < {edge:.4g}"
                    + ("; gamma = 0 needs no_consensus = true" if self.gamma == 0 else "")
                )
            return self

    def __init__(self, config: Config) -> None:
        self.config = config
        self._phi: Tensor | None = None
        self._delta: Tensor | None = None

    def start(self, theta: Tensor) -> None:
        self._phi, self._delta = theta.detach().clone(), torch.zeros_like(theta)

    def contribution(self, theta: Tensor) -> Tensor:
        if self.config.gamma == self.config.beta:
            return theta
        phi, _ = self._state()
        return theta - phi if self.config.no_consensus else torch.cat((phi, theta - phi))

    def width(self) -> int:
        return 1 if self.config.no_consensus or self.config.gamma == self.config.beta else 2

    def solo(self, theta: Tensor) -> Tensor | None:
        phi, delta = self._state()
        delta = self.config.alpha * delta + self.config.beta * (theta - phi)
        self._phi, self._delta = phi + delta, delta
        return self._phi - theta

    def correction(self, own: Tensor, mean: Tensor) -> Tensor:
        difference = mean - own
        if self.width() == 1:
            return self.config.beta * difference
        phi, delta = difference.chunk(2)
        return self.config.beta * delta + self.config.gamma * phi

    def settle(self, correction: Tensor) -> None:
        phi, delta = self._state()
        self._phi = phi + correction
        if self.config.alpha < HIGH_MOMENTUM:
            self._delta = delta + correction

    def tensors(self) -> dict[str, Tensor]:
        phi, delta = self._state()
        return {"phi": phi, "delta": delta}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if sorted(tensors) != ["delta", "phi"] or tensors["phi"].shape != tensors["delta"].shape:
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            raise ValueError(f"NoLoCo's state is phi and delta of one shape, not {shapes}")
        self._phi, self._delta = tensors["phi"].clone(), tensors["delta"].clone()

    def _state(self) -> tuple[Tensor, Tensor]:
        if self._phi is None or self._delta is None:
            raise RuntimeError("start() or load() comes before any outer step")
        return self._phi, self._delta
