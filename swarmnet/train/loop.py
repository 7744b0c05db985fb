"""The inner loop: one optimizer step after another on this peer's own text.

Nothing distributed is in sight: whoever runs the loop comes by the exchange's desk between steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from swarmnet.config import RunConfig
from swarmnet.data import Batches
from swarmnet.sharing import ALONE, View
from swarmnet.train.evaluate import token_loss
from swarmnet.train.replica import Replica
from swarmnet.train.schedule import rate


@dataclass(frozen=True)
class Step:
    """What one inner step did. ``loss`` in nats per token, before the step."""

    loss: float
    lr: float
    tokens: int


class Trainer:
    """Takes inner steps on a replica; ``steps`` counts them."""

    def __init__(self, run: RunConfig, replica: Replica, batches: Batches) -> None:
        self._run = run
        self.replica = replica
        self.batches = batches
        self._peak = run.inner.config("inner").lr
        self.steps = 0

    def step(self, progress: float, view: View = ALONE) -> Step:
        """One step at the learning rate that the progress of the whole run calls for.

        ``view``: who else reads now.
        """
        lr = rate(progress, self._peak, self._run.schedule)
        tokens = self.batches.next(view).to(self.replica.theta.device)
        loss = token_loss(self.replica.module, tokens)
        loss.backward()  # type: ignore[no-untyped-call]
        self.replica.mirror.guard()
        self.replica.rules.inner.step(lr)
        self.steps += 1
        return Step(float(loss.detach()), lr, tokens[:, 1:].numel())


def choose_device(wanted: str) -> torch.device:
    """``auto`` takes CUDA when torch sees one."""
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
