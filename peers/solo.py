"""One worker alone: what a swarm has to beat, and by how much it did.

Averaging replicas is worth its wires only if one worker that takes as many steps, or somewhat
more, ends worse than the merged model. So that worker gets its best: a whole schedule over its
own number of steps, and a learning rate of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from swarmnet.config import Choice, RunConfig
from swarmnet.data import Batches, Corpus
from swarmnet.train.evaluate import held_out_loss
from swarmnet.train.loop import Trainer
from swarmnet.train.replica import Replica

HELD_OUT_TOKENS = 131_072
"""Windows are chosen by this number: compare only losses that were measured with the same."""


@dataclass(frozen=True)
class SoloResult:
    """One worker's end. ``loss`` in nats per held-out token; ``tokens`` are those it read."""

    steps: int
    lr: float
    loss: float
    tokens: int


def train_alone(
    run: RunConfig, corpus: Corpus, steps: int, lr: float, seed: int, device: torch.device
) -> SoloResult:
    """Train the run's model for exactly ``steps`` steps, warm-up to last rate, with nobody.

    Args:
        lr: peak learning rate, in place of the run's.
        seed: of the first weights and of the text that is read, in place of the run's.

    Raises:
        DataError: the corpus is too short for a batch or for an evaluation.
        ModelError: the run's model is a folder; only models written in the run file are built.
    """
    inner = Choice.model_validate({"name": run.inner.name, **run.inner.options, "lr": lr})
    run = run.model_copy(update={"inner": inner, "seed": seed})
    replica = Replica(run.model.build("model", {}).build(seed).to(device), run, seed)
    trainer = Trainer(run, replica, Batches(corpus.train, run, "alone"))
    tokens = sum(trainer.step(step / steps).tokens for step in range(steps))
    loss, _ = held_out_loss(replica.module, corpus.held_out, run.batch, HELD_OUT_TOKENS)
    return SoloResult(steps, lr, loss, tokens)
