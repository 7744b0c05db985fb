"""AdamW (arXiv 1711.05101) with clipping by the global norm, on torch's fused kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from swarmnet.config import Section

Decay = Annotated[float, Field(ge=0, lt=1)]


class AdamW:
    """The inner optimizer whose moments live in two flat vectors, cut like theta."""

    class Config(Section):
        lr: float = Field(4e-3, gt=0, allow_inf_nan=False, description="peak learning rate")
        betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="decay of both moments")
        eps: float = Field(1e-8, gt=0, allow_inf_nan=False)
        weight_decay: float = Field(
            0.1, ge=0, allow_inf_nan=False, description="on parameters of 2 and more axes"
        )
        clip: float = Field(1.0, gt=0, description="largest global L2 norm of the gradient")

    def __init__(self, config: Config, parameters: Sequence[nn.Parameter]) -> None:
        self.config = config
        self._parameters = list(parameters)
        self._optimizer = torch.optim.AdamW(
            self._groups(), betas=config.betas, eps=config.eps, fused=True
        )
        self._moments = {"exp_avg": self._flat(), "exp_avg_sq": self._flat()}
        self._place_state()

    def step(self, lr: float) -> None:
        norm = nn.utils.clip_grad_norm_(self._parameters, self.config.clip)
        if norm.isfinite():
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        return self._moments | {"step": self._steps()[0]}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        expected = {name: tensor.shape for name, tensor in self.tensors().items()}
        given = {name: tensor.shape for name, tensor in tensors.items()}
        if given != expected:
            raise ValueError(f"AdamW's state has the shapes {expected}, not {given}")
        for name, moment in self._moments.items():
            moment.copy_(tensors[name])
        for step in self._steps():
            step.copy_(tensors["step"])

    def _groups(self) -> list[dict[str, Any]]:
        matrices = [p for p in self._parameters if p.ndim >= 2]
        others = [p for p in self._parameters if p.ndim < 2]
        return [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]

    def _flat(self) -> Tensor:
        numel = sum(p.numel() for p in self._parameters)
        return self._parameters[0].new_zeros(numel)

    def _place_state(self) -> None:
        """Make torch's per-parameter state views into the flat moments."""
        offset = 0
        for parameter in self._parameters:
            stop = offset + parameter.numel()
            views = {name: m[offset:stop].view_as(parameter) for name, m in self._moments.items()}
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            self._optimizer.state[parameter] = {"step": step, **views}
            offset = stop

    def _steps(self) -> list[Tensor]:
        return [self._optimizer.state[parameter]["step"] for parameter in self._parameters]
