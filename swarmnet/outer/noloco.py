"""NoLoCo's outer step (arXiv 2506.10911, eqs. 1, 2 and 32, with the sign of eq. 32).

With ``Delta = theta - phi`` (downhill) and the group means D of Delta and P of phi::

    delta <- alpha * delta + beta * D - gamma * (phi - P)
    phi   <- phi + delta;   theta <- phi

It is heavy ball, not look-ahead Nesterov. Split for meetings that end late or never: the solo
step uses the own Delta for D and the own phi for P, and the correction

    c = beta * (D - Delta) - gamma * (phi - P)

is added to delta and phi when the partner's payload is there. With gamma equal to beta this is
``beta * (mean of theta - theta)``, so sending theta alone is exact and halves the bytes.

With ``by_work`` D weighs each Delta by the inner steps behind it while P stays the plain mean, so
that the consensus terms of a group still cancel. Then phi and Delta travel separately.

Stability. Without gradients, under random pairs of N replicas, the distance between replicas
shrinks if and only if ``0 < gamma < 2 (1 - alpha^2) / (1 - alpha / (N - 1))``; the bound here
is the one for N to infinity. (The paper's interval allows alpha 0.9 with gamma 1, which grows.)
From alpha 0.8 on the legal gammas are small and the momentum would carry every disagreement on
for many meetings, so there corrections move phi only and never enter delta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import torch
from pydantic import Field, model_validator

from swarmnet.config import Section
from swarmnet.outer._effort import MAX_EFFORT, MAX_RATIO
from swarmnet.outer._spans import spans

if TYPE_CHECKING:
    from torch import Tensor

HIGH_MOMENTUM = 0.8


class NoLoCo:
    """Slow weights phi with momentum delta, kept near the other replicas' by pair meetings."""

    class Config(Section):
        alpha: float = Field(0.5, ge=0, lt=1, description="outer momentum")
        beta: float = Field(0.7, gt=0, allow_inf_nan=False, description="outer learning rate")
        gamma: float = Field(0.7, allow_inf_nan=False, description="strength of the consensus")
        by_work: bool = Field(False, description="weigh Delta by inner steps; doubles the bytes")
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

    @property
    def sends_theta(self) -> bool:
        config = self.config
        return config.gamma == config.beta and not config.by_work

    def contribution(self, theta: Tensor, out: Tensor) -> None:
        phi, _ = self._state()
        if self.sends_theta:
            out[0] = theta
        elif self.config.no_consensus:
            torch.sub(theta, phi, out=out[0])
        else:
            out[0] = phi
            torch.sub(theta, phi, out=out[1])

    def width(self) -> int:
        return 1 if self.config.no_consensus or self.sends_theta else 2

    def effort(self, steps: int, step_s: float) -> int:
        return min(steps, MAX_EFFORT)

    def shares(self, works: Sequence[int]) -> list[list[float]]:
        equal = [1.0] * len(works)
        weighed = _weighed(works) if self.config.by_work and any(works) else equal
        return [equal, weighed] if self.width() == 2 else [weighed]

    def solo(self, theta: Tensor, live: Tensor) -> None:
        phis, deltas = self._state()
        for span in spans(theta):
            phi, delta, snapshot = phis[span], deltas[span], theta[span]
            delta.mul_(self.config.alpha).add_(snapshot - phi, alpha=self.config.beta)
            phi.add_(delta)
            live[span].add_(phi - snapshot)

    def correction(self, pull: Tensor) -> Tensor:
        if self.width() == 1:
            return pull[0].mul_(self.config.beta)
        phi: Tensor = pull[0].mul_(self.config.gamma)
        return phi.add_(pull[1], alpha=self.config.beta)

    def settle(self, correction: Tensor) -> None:
        phi, delta = self._state()
        phi.add_(correction)
        if self.config.alpha < HIGH_MOMENTUM:
            delta.add_(correction)

    def rest(self, theta: Tensor) -> None:
        phi, _ = self._state()
        theta.copy_(phi)

    def unshared(self, theta: Tensor, out: Tensor) -> None:
        phi, _ = self._state()
        torch.sub(theta, phi, out=out)

    def inheritance(self, leaver: int, heir: int) -> float:
        """All of it, by work too: it stands for the step that the leaver would have taken alone."""
        return 1.0

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self._state())

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


def _weighed(works: Sequence[int]) -> list[float]:
    """In proportion to work, a boaster's cut short; one that only listens weighs nothing."""
    most = MAX_RATIO * min(work for work in works if work)
    return [float(min(work, most)) for work in works]
