"""One worker alone: what a swarm has to beat, and by how much it did.

Averaging replicas is worth its wires only if one worker that takes as many steps, or somewhat
more, ends worse than the merged model. So that worker gets its best: a whole schedule over its
own number of steps, and a learning rate of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from swarmnet.config import Choice, RunConfig
from swarmnet.data import Batches, Corpus
from swarmnet.train.evaluate import held_out_loss
from swarmnet.train.loop import Trainer
from swarmnet.train.replica import Replica

HELD_OUT_TOKENS = 131_072
"""Windows are chosen by this number: compare only losses that were measured with the same."""

LEAST_SPEEDUP = 0.5
"""Two losses so close in steps say nothing about a curve further away than this."""


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
    trainer = Trainer(run, replica, Batches(corpus.train, run.batch, seed, "alone"))
    tokens = sum(trainer.step(step / steps).tokens for step in range(steps))
    loss, _ = held_out_loss(replica.module, corpus.held_out, run.batch, HELD_OUT_TOKENS)
    return SoloResult(steps, lr, loss, tokens)


def speedup(merged_loss: float, at_t: tuple[int, float], at_13t: tuple[int, float]) -> float | str:
    """How many times a swarm worker's steps one worker alone takes to the merged loss.

    Between its two measured ends, (steps, loss) each, the lone worker's loss is taken as linear
    in the logarithm of its steps.

    Returns:
        The factor; ``">=1.3"`` when even the longer run ends above ``merged_loss``. Below 1 the
        line is extrapolated as far as ``"<=0.5"``; where the longer run is not the better one
        there is no line, and a swarm that lost to the shorter gets ``"<=1"``.

    Raises:
        ValueError: a loss is not finite, or the second run is not the longer one.
    """
    (few, before), (many, after) = at_t, at_13t
    if not all(map(math.isfinite, (merged_loss, before, after))) or not 0 < few < many:
        raise ValueError("a speedup needs finite losses and two growing numbers of steps")
    ratio = many / few
    if merged_loss == before:
        return 1.0
    if merged_loss < min(before, after):
        return f">={ratio:.3g}"
    if after >= before:
        return "<=1"
    factor = ratio ** ((before - merged_loss) / (before - after))
    return factor if factor > LEAST_SPEEDUP else f"<={LEAST_SPEEDUP:g}"
