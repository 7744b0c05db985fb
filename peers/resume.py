"""What a worker's checkpoint holds beside its weights, so that it goes on as if it had not stopped.

Random states, the place in its text, its window between two meetings, the rounds of others that are
in its weights, and the questions that it has open with the corrections that they are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from peers.portrait import Facts, Portrait
from swarmnet.errors import PayloadError
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.ledger import Open
from swarmnet.train.loop import Trainer
from swarmnet.train.replica import Replica

OPEN, RANDOM = "open.", "random."


class _Window(BaseModel):
    """See ``exchange.window.Window.memory``."""

    model_config = ConfigDict(extra="forbid")
    number: int
    origin: int
    worked_from: int
    history: list[str]
    random: tuple[int, list[int], float | None]


class _Question(BaseModel):
    """An open question; its correction is the tensor ``open.<place in the list>``."""

    peer: str
    round: int
    step: int
    witnesses: tuple[str, ...]


class _Kept(Facts):
    """The numbers of a checkpoint. ``reading`` means something to whoever gave it."""

    model_config = ConfigDict(strict=False, extra="ignore")
    reading: Any
    in_weights: list[tuple[str, int]]
    window: _Window
    questions: list[_Question]


@dataclass(frozen=True)
class Parts:
    """What of a worker goes into its checkpoint, and is put back from it."""

    replica: Replica
    trainer: Trainer
    gossip: Gossip


def memorise(parts: Parts, facts: Mapping[str, Any]) -> Portrait:
    """Training thread, between two steps: all of it, the weights in the replica's mirror."""
    replica, gossip = parts.replica, parts.gossip
    questions = [item for item in gossip.pending.owed() if item.phase == "train"]
    tensors = replica.mirrored()
    tensors |= {RANDOM + name: state for name, state in _random_states(replica).items()}
    tensors |= {
        f"{OPEN}{index}": item.correction.to("cpu", copy=True)
        for index, item in enumerate(questions)
    }
    more = {
        "reading": parts.trainer.batches.position(),
        "in_weights": list(gossip.settling.in_weights),
        "window": gossip.window.memory(),
        "questions": [
            {"peer": q.peer, "round": q.round, "step": q.step, "witnesses": list(q.witnesses)}
            for q in questions
        ],
    }
    return Portrait(tensors, {**facts, **more}, replica.mirror.finish)


def check(kept: Portrait, replica: Replica) -> None:
    """Raises PayloadError when ``kept`` is no checkpoint of a worker of this model."""
    facts = _facts(kept)
    replica.check(_state(kept))
    wanted = {f"{OPEN}{index}" for index in range(len(facts.questions))}
    wanted |= {RANDOM + name for name in _random_states(replica)}
    shape = replica.theta.shape
    corrections = [kept.tensors.get(f"{OPEN}{index}") for index in range(len(facts.questions))]
    if wanted != {name for name in kept.tensors if name.startswith((OPEN, RANDOM))} or any(
        correction is None or correction.shape != shape for correction in corrections
    ):
        raise PayloadError("what it holds beside the weights does not fit this worker")


def answer_for(kept: Portrait, gossip: Gossip) -> None:
    """Before the first question comes: what the kept weights hold, and what they wait for."""
    facts = _facts(kept)
    gossip.window.recall(facts.window.model_dump())
    gossip.remember(facts.in_weights)
    gossip.recall(
        Open(
            peer=question.peer,
            round=question.round,
            correction=kept.tensors[f"{OPEN}{index}"].clone(),
            window=0,
            step=question.step,
            witnesses=question.witnesses,
        )
        for index, question in enumerate(facts.questions)
    )


def resume(kept: Portrait, replica: Replica, trainer: Trainer) -> None:
    """Weights, optimizer, random states and the place in the text. Raises PayloadError."""
    facts = _facts(kept)
    replica.load(_state(kept), met=facts.met)
    trainer.steps = facts.step
    try:
        trainer.batches.resume(facts.reading)
    except (KeyError, TypeError, ValueError) as error:
        raise PayloadError("its place in the text cannot be read") from error
    replica.noise = kept.tensors[f"{RANDOM}codec"]
    torch.set_rng_state(kept.tensors[f"{RANDOM}cpu"])
    if replica.theta.device.type == "cuda":
        torch.cuda.set_rng_state(kept.tensors[f"{RANDOM}cuda"], replica.theta.device)


def _facts(kept: Portrait) -> _Kept:
    try:
        return _Kept.model_validate(kept.facts)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise PayloadError(f"its facts cannot be read: {place}") from error


def _state(kept: Portrait) -> dict[str, Tensor]:
    """The replica's own tensors."""
    return {n: t for n, t in kept.tensors.items() if not n.startswith((OPEN, RANDOM))}


def _random_states(replica: Replica) -> dict[str, Tensor]:
    """The codec's noise, and torch's own generators for models that drop out."""
    states = {"codec": replica.noise, "cpu": torch.get_rng_state()}
    if replica.theta.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(replica.theta.device)
    return states
