"""Boundaries side by side: bytes per token at a cut, and the loss after the same tokens.

    python tests/bench/boundary.py [--json] [--steps 300] [--seeds 1] [--text PATH]

A byte-level Llama of width 256, 4 blocks and 3 stages (2 cuts) is trained from scratch in one
process: activations and their gradients go through the boundary's own payloads at each cut, as
they do between peers. Windows, schedule and seeds are the same for all. ``bytes`` is one
payload's share of a token, and what goes back is as much; ``ratio`` is that of float32 activations
to it, and ``with id`` counts the 4 bytes of the token's id, which goes beside the payload of each
cut, among the bytes. ``above`` is the held-out loss less that of the float32 boundary.

Then one block of width 4096 at k = 40: bytes, and the share of the activations that is lost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from swarmnet.boundary import Boundary
from swarmnet.config import Batch, Choice, RunConfig, Schedule
from swarmnet.data import Batches, Corpus
from swarmnet.data.text import content_hash
from swarmnet.train.evaluate import held_out_loss
from swarmnet.train.schedule import rate
from tests.crossing import crossed

WIDTH, STAGES = 256, 3
BATCH = Batch(sequences=8, length=128)
SCHEDULE = Schedule(warmup=0.15, final=0.1)
HELD_OUT_TOKENS = 64 * 1024
ID_BYTES = 4
CHOICES: dict[str, dict[str, Any]] = {
    "plain, float32": {"name": "plain"},
    "plain, bf16": {"name": "plain", "codec": "bf16"},
    "plain, int8": {"name": "plain", "codec": "int8"},
    "bottleneck c 4, int8": {"name": "bottleneck", "c": 4, "codec": "int8"},
    "maxout c 4, int8": {"name": "maxout", "c": 4, "codec": "int8"},
    "column mask 10 %": {"name": "column_mask", "keep": 0.1},
    "subspace k 16": {"name": "subspace", "k": 16},
    "subspace k 16, int8": {"name": "subspace", "k": 16, "codec": "int8"},
    "subspace k 10, int8": {"name": "subspace", "k": 10, "codec": "int8"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--text", type=Path, help="instead of Python's own standard library")
    parser.add_argument("--only", nargs="+", default=list(CHOICES), choices=list(CHOICES))
    args = parser.parse_args()
    log = sys.stderr if args.json else sys.stdout
    builder = model(WIDTH, 4).build("model", {})
    corpus = read(args.text, builder.tokenizer())
    rows: list[Row] = []
    for label in args.only:
        choice = Choice(**CHOICES[label])
        losses = [
            trained(choice, corpus, args.steps, args.lr, seed).held_out(corpus)
            for seed in range(args.seeds)
        ]
        rows.append(Row(label, nbytes(choice.build("boundary"), WIDTH), losses))
        print(rows[-1].describe(rows[0]), file=log, flush=True)
    wide = wide_block()
    print("width 4096, k 40: {bytes:.0f} bytes, lost {lost:.1e}".format(**wide), file=log)
    if args.json:
        shown = [row.as_dict(rows[0]) for row in rows]
        print(json.dumps({"steps": args.steps, "boundary": shown, "wide": wide}))


class Row(NamedTuple):
    """One boundary at width 256. ``nbytes`` of a payload per token; losses in nats per byte."""

    name: str
    nbytes: float
    losses: list[float]

    def as_dict(self, floor: Row) -> dict[str, object]:
        loss = statistics.mean(self.losses)
        return {
            "name": self.name,
            "bytes": self.nbytes,
            "ratio": 4 * WIDTH / self.nbytes,
            "ratio_with_id": 4 * WIDTH / (self.nbytes + ID_BYTES),
            "loss": loss,
            "above": loss - statistics.mean(floor.losses),
            "losses": self.losses,
        }

    def describe(self, floor: Row) -> str:
        return (
            "{name:22}{bytes:8.1f} bytes, ratio {ratio:6.1f}, with id {ratio_with_id:5.1f}; "
            "loss {loss:.3f}, above {above:+.3f}".format(**self.as_dict(floor))
        )


class Cut(nn.Module):
    """All stages of a model in one process, their boundaries as between peers."""

    def __init__(self, width: int, blocks: int, stages: int, choice: Choice, seed: int) -> None:
        super().__init__()
        self.boundary: Boundary = choice.build("boundary")
        builder = model(width, blocks).build("model", {})
        self.stages = nn.ModuleList(
            builder.stage(seed, i, stages, self.boundary) for i in range(stages)
        )
        self.source = torch.Generator().manual_seed(seed)
        # As large as the subspace's frozen embedding, else that would be what is compared.
        nn.init.normal_(self.stages[0].embedding.weight, generator=self.source)
        self.constrain()

    def forward(self, input_ids: Tensor, **_: object) -> Scores:
        received = None
        for stage in self.stages[:-1]:
            received = crossed(self.boundary, stage(input_ids, received), self.source)
        return Scores(self.stages[-1](input_ids, received))

    def constrain(self) -> None:
        for i, stage in enumerate(self.stages):
            self.boundary.constrain(stage, i == 0, i == len(self.stages) - 1)

    def held_out(self, corpus: Corpus) -> float:
        return held_out_loss(self, corpus.held_out, BATCH, HELD_OUT_TOKENS)[0]


class Scores(NamedTuple):
    """What a causal language model of ``transformers`` returns, as far as it is read here."""

    logits: Tensor


def trained(choice: Choice, corpus: Corpus, steps: int, lr: float, seed: int) -> Cut:
    whole = Cut(WIDTH, 4, STAGES, choice, seed)
    inner = Choice(name="adamw", lr=lr).build("inner", list(whole.parameters()))
    batches = Batches(corpus.train, run(seed), "bench")
    for step in range(steps):
        ids = batches.next()
        scores = whole(ids[:, :-1]).logits
        nn.functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten()).backward()
        inner.step(rate((step + 1) / steps, lr, SCHEDULE))
        whole.constrain()
    return whole


def wide_block() -> dict[str, float]:
    """Width 4096, k 40: bytes a token, and what one block's activations lose at the cut."""
    boundary: Boundary = Choice(name="subspace", k=40).build("boundary")
    stage = model(4096, 2).build("model", {}).stage(0, 0, 2, boundary)
    sent: list[Tensor] = []
    sender = stage.boundary["sender"]
    sender.register_forward_pre_hook(lambda _module, inputs: sent.append(inputs[0]))
    ids = torch.randint(0, 256, (1, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        arrived = boundary.receiver(4096, stage.vocab)(stage(ids), ids)
    lost = float((arrived - sent[0]).norm() / sent[0].norm())
    return {"bytes": nbytes(boundary, 4096), "lost": lost}


def nbytes(boundary: Boundary, width: int) -> float:
    """Of a payload of one microbatch, per token."""
    values = torch.randn(BATCH.sequences, BATCH.length, boundary.features(width))
    payload = memoryview(boundary.encode(values, torch.Generator()))
    return payload.nbytes / (BATCH.sequences * BATCH.length)


def model(width: int, blocks: int) -> Choice:
    config = {
        "hidden_size": width,
        "intermediate_size": width * 11 // 4,
        "num_hidden_layers": blocks,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "max_position_embeddings": BATCH.length,
        "initializer_range": width**-0.5,
        "tie_word_embeddings": False,
    }
    return Choice(name="causal_lm", architecture="llama", config=config)


def run(seed: int) -> RunConfig:
    """What the batches need to know."""
    table = {
        "schema": 1,
        "name": "boundary",
        "seed": seed,
        "batch": BATCH,
        "model": model(WIDTH, 4),
    }
    target = {"tokens": 1, "minutes": 1}
    return RunConfig.model_validate(table | {"target": target, "sharing": "independent"})


def read(text: Path | None, tokenizer: Any) -> Corpus:
    if text is None:
        stdlib: Corpus = Choice(name="stdlib").build("data", tokenizer, {})
        return stdlib
    digest = content_hash(text)
    local: Corpus = Choice(name="text", hash=digest).build("data", tokenizer, {digest: text})
    return local


if __name__ == "__main__":
    main()
