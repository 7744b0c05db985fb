"""The work that all ways of ``pipeline.py`` do, what they report, and what the machine allows.

One global batch is ``microbatches`` times forward and backward through all stages, gradients
summed, and one AdamW step of each stage with its gradient clipped: the same weights, ids and
arithmetic for everybody, so that everybody ends with the same loss. One torch thread a stage.

Run by itself it is the row *in turn*: one process that calls its stages one after another, without
any network. What its stages take apart is the bound of every pipeline.

    python tests/bench/pipeline_work.py --width 256 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch
from procfs import cpu_seconds, written_bytes
from torch import Tensor, nn

from swarmnet.boundary.plain import Plain
from swarmnet.inner.adamw import AdamW
from swarmnet.model.causal_lm import CausalLM

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ANSWER_S = 900.0


@dataclass(frozen=True)
class Work:
    """A model by its width, and what a global batch of it is."""

    width: int = 256
    layers: int = 6
    stages: int = 3
    sequences: int = 1
    """Of a microbatch."""
    tokens: int = 128
    """Of a sequence."""
    microbatches: int = 16
    batches: int = 6
    warm_up: int = 2
    slow: tuple[int, float] = (-1, 1.0)
    """A stage, and how many times longer than its own computing it shall take."""

    @property
    def sequences_per_batch(self) -> int:
        return self.sequences * self.microbatches

    @property
    def boundary_bytes(self) -> int:
        """What crosses one cut in one direction in a batch, in float32."""
        return 4 * self.width * self.tokens * self.sequences_per_batch

    def model(self) -> CausalLM:
        heads = max(1, self.width // 64)
        config = {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": self.tokens,
            "initializer_range": self.width**-0.5,
            "tie_word_embeddings": False,
        }
        return CausalLM(CausalLM.Config(config=config), {})

    def stage(self, index: int) -> nn.Module:
        """float32; called with ids and, but for the first, with what the one before gave."""
        return self.model().stage(0, index, self.stages, Plain(Plain.Config()))

    def ids(self, batch: int) -> Tensor:
        """(sequences of a batch, T) int64."""
        generator = torch.Generator().manual_seed(batch)
        return torch.randint(256, (self.sequences_per_batch, self.tokens), generator=generator)

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Work:
        values = json.loads(text)
        return cls(**values | {"slow": tuple(values["slow"])})


@dataclass
class Record:
    """What one process tells of its batches, the warm-up's left out of the sums."""

    ends: list[float] = field(default_factory=list)
    """When each batch was over, on the clock that all processes share."""
    busy: dict[str, list[float]] = field(default_factory=dict)
    """Per stage and batch: processor seconds of its forward, backward and step."""
    losses: list[float] = field(default_factory=list)
    """Mean per token of each batch, where it is known."""
    cpu_s: float = 0.0
    written: int = 0

    def begin(self) -> None:
        self.cpu_s -= cpu_seconds(os.getpid())
        self.written -= written_bytes(os.getpid())

    def finish(self) -> None:
        self.cpu_s += cpu_seconds(os.getpid())
        self.written += written_bytes(os.getpid())

    def say(self) -> None:
        print(json.dumps(asdict(self)), flush=True)


@dataclass(frozen=True)
class Row:
    """One way of doing the work."""

    name: str
    work: Work
    sequences_per_s: float
    """By the median batch."""
    batch_s: float
    worst_s: float
    loss: float
    """Of the last batch."""
    cpu_s: dict[str, float]
    """Processor seconds per batch of each process."""
    busy_s: dict[str, float]
    """Of each stage, per batch; the largest is the bound of a pipeline of these stages."""
    wire_bytes: int
    """Written by all processes per batch."""

    @property
    def bound(self) -> float:
        """Sequences per second if the dearest stage were always busy and nothing else cost."""
        return self.work.sequences_per_batch / max(self.busy_s.values())

    @property
    def bound_of_cores(self) -> float:
        """The same if all that is needed were processor time on this machine's cores."""
        cores = min(len(os.sched_getaffinity(0)), self.work.stages)
        return self.work.sequences_per_batch * cores / sum(self.busy_s.values())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"bound": self.bound, "bound_of_cores": self.bound_of_cores}


def row(name: str, work: Work, records: dict[str, Record]) -> Row:
    """A batch is over when the last process is through with it."""
    ends = [max(each) for each in zip(*(r.ends for r in records.values()), strict=True)]
    lasted = [b - a for a, b in pairwise(ends)][work.warm_up - 1 :]
    median = statistics.median(lasted)
    busy = {stage: lap for r in records.values() for stage, lap in r.busy.items()}
    counted = work.batches
    return Row(
        name=name,
        work=work,
        sequences_per_s=work.sequences_per_batch / median,
        batch_s=median,
        worst_s=max(lasted),
        loss=next(r.losses[-1] for r in records.values() if r.losses),
        cpu_s={name: r.cpu_s / counted for name, r in records.items()},
        busy_s={stage: statistics.median(laps[work.warm_up :]) for stage, laps in busy.items()},
        wire_bytes=sum(r.written for r in records.values()) // counted,
    )


class Lap:
    """Adds up the processor time of a stage's operations and makes a slow stage slow."""

    def __init__(self, slowness: float) -> None:
        self.slowness, self.seconds = slowness, 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        began = time.thread_time()
        yield
        took = time.thread_time() - began
        self.seconds += took
        if self.slowness > 1:
            time.sleep((self.slowness - 1) * took)

    def reset(self) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def lap_of(work: Work, stage: int) -> Lap:
    slow, times = work.slow
    return Lap(times if stage == slow else 1.0)


def stepper(stage: nn.Module) -> AdamW:
    return AdamW(AdamW.Config(lr=1e-3), list(stage.parameters()))


def loss_of(scores: Tensor, ids: Tensor) -> Tensor:
    """Mean over a microbatch's tokens: every microbatch has as many."""
    flat = scores[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(flat, ids[:, 1:].flatten())


def in_turn(work: Work) -> Record:
    """All stages in this process, one microbatch after another."""
    stages = [work.stage(index) for index in range(work.stages)]
    steppers = [stepper(stage) for stage in stages]
    laps = [lap_of(work, index) for index in range(work.stages)]
    record = Record(busy={f"stage {index}": [] for index in range(work.stages)})
    for batch in range(work.warm_up + work.batches):
        if batch == work.warm_up:
            record.begin()
        losses = [_trip(stages, laps, ids, work) for ids in work.ids(batch).split(work.sequences)]
        for lap, each in zip(laps, steppers, strict=True):
            with lap():
                each.step(1e-3)
        record.losses.append(sum(losses) / work.microbatches)
        record.ends.append(time.monotonic())
        for lap, seconds in zip(laps, record.busy.values(), strict=True):
            seconds.append(lap.reset())
    record.finish()
    return record


def _trip(stages: Sequence[nn.Module], laps: Sequence[Lap], ids: Tensor, work: Work) -> float:
    """One microbatch through all stages and back; its loss."""
    received: list[Tensor | None] = [None]
    sent: list[Tensor] = []
    for stage, lap in zip(stages, laps, strict=True):
        with lap():
            sent.append(stage(ids, received[-1]))
        received.append(sent[-1].detach().requires_grad_())
    loss = loss_of(sent[-1], ids)
    gradient: Tensor | None = None
    sent[-1] = loss / work.microbatches
    for index in reversed(range(len(stages))):
        with laps[index]():
            sent[index].backward(gradient)
        inner = received[index]
        gradient = None if inner is None else inner.grad
    return float(loss.detach())


def run_in_turn(work: Work) -> Row:
    """In a process of its own, so that one thread and its processor time are all its own."""
    argv = [sys.executable, __file__, "--child", work.as_json()]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment())
    return row("in turn", work, {"all": collect(process)})


def collect(process: subprocess.Popen[str]) -> Record:
    """The record that a child prints as its last line. Raises RuntimeError if it failed."""
    out, _ = process.communicate(timeout=ANSWER_S)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return Record(**json.loads(out.splitlines()[-1]))


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return os.environ | ONE_THREAD | {"PYTHONPATH": path}


def add_work(parser: argparse.ArgumentParser) -> None:
    for each in fields(Work):
        if each.name not in ("slow", "stages"):
            parser.add_argument(f"--{each.name.replace('_', '-')}", type=int, default=each.default)
    parser.add_argument("--slow", default="", metavar="STAGE:TIMES", help="a slow stage, as 1:5")


def work_of(args: argparse.Namespace) -> Work:
    stage, _, times = args.slow.partition(":")
    slow = (int(stage), float(times)) if args.slow else Work.slow
    known = {each.name for each in fields(Work)}
    return Work(**{k: v for k, v in vars(args).items() if k in known} | {"slow": slow})


def render(rows: Sequence[Row], out: IO[str] = sys.stdout) -> None:
    head = f"{'':28}{'seq/s':>8}{'s/batch':>9}{'worst':>8}{'MB/batch':>10}{'loss':>8}  cpu s"
    print(head, file=out)
    for r in rows:
        cpu = " ".join(f"{name} {seconds:.2f}" for name, seconds in r.cpu_s.items())
        figures = f"{r.sequences_per_s:8.2f}{r.batch_s:9.3f}{r.worst_s:8.3f}"
        print(f"{r.name:28}{figures}{r.wire_bytes / 1e6:10.2f}{r.loss:8.4f}  {cpu}", file=out)
    out.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_work(parser)
    args = parser.parse_args()
    if args.child:
        torch.set_num_threads(1)
        in_turn(Work.from_json(args.child)).say()
        return
    result = run_in_turn(work_of(args))
    if args.json:
        print(json.dumps(result.as_dict()))
    else:
        render([result])
        print(f"bound: {result.bound:.2f} seq/s, of this machine: {result.bound_of_cores:.2f}")


if __name__ == "__main__":
    main()
