"""torch's side of ``pipeline.py``: its own schedules, 1F1B and GPipe, one process a stage.

Over gloo, which neither encrypts nor authenticates; swarmnet's streams do both. Gloo sends nothing
before the receiver has asked for it, and these schedules ask when they need it: what a stage sends
waits for a whole round trip. That is how torch's schedules behave on a CPU, not tuned by us. Its
schedules for several stages a process (interleaved 1F1B, looped BFS), given one, ask earlier and
were no faster than GPipe at 100 ms.

    python tests/bench/pipeline_torch.py --width 256 --schedule 1f1b --json
    python tests/bench/pipeline_torch.py --rtt-ms 100 --mbit 100 --slow 1:5
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from pipeline_work import (
    ANSWER_S,
    Lap,
    Record,
    Row,
    Work,
    add_work,
    collect,
    environment,
    lap_of,
    loss_of,
    render,
    row,
    run_in_turn,
    stepper,
    work_of,
)
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from tests.netlab.lab import DEVICE, Lab, Link

SCHEDULES = {"1f1b": Schedule1F1B, "gpipe": ScheduleGPipe}
PORT = 29500


def run_torch(schedule: str, work: Work, lab: Lab | None = None) -> Row:
    """All stages on this machine, or each on a host of ``lab``, the first ones of its hosts.

    Raises:
        RuntimeError: a process failed.
    """
    address = lab.address(lab.hosts[0]) if lab else "127.0.0.1"
    meeting = f"tcp://{address}:{PORT if lab else free_port()}"
    # Its warning that a host without a name server has no name is no news here.
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    env = environment() | quiet | {"GLOO_SOCKET_IFNAME": DEVICE if lab else "lo"}
    processes: list[subprocess.Popen[str]] = []
    try:
        for stage in range(work.stages):
            child = json.dumps([schedule, stage, meeting, work.as_json()])
            argv = [sys.executable, __file__, "--child", child]
            if lab:
                host = lab.hosts[stage]
                processes.append(lab.popen(host, argv, env=env, stdout=subprocess.PIPE))
            else:
                processes.append(subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True))
        records = {f"stage {stage}": collect(each) for stage, each in enumerate(processes)}
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return row(f"torch {schedule}", work, records)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Timed(PipelineStage):
    """torch's stage with a lap around what it computes."""

    lap: Lap

    def forward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        with self.lap():
            return super().forward_one_chunk(*args, **kwargs)

    def backward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        with self.lap():
            return super().backward_one_chunk(*args, **kwargs)


class Later(nn.Module):
    """A stage that is not the first: torch hands it activations alone, no ids."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, received: Tensor) -> Tensor:
        scores: Tensor = self.stage(None, received)
        return scores


@contextmanager
def meet(meeting: str, rank: int, size: int) -> Iterator[None]:
    patience = timedelta(seconds=ANSWER_S)
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=size, timeout=patience
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def serve(schedule: str, index: int, work: Work) -> Record:
    """One stage, in a process of its own."""
    first, last = index == 0, index == work.stages - 1
    module = work.stage(index)
    step, lap = stepper(module), lap_of(work, index)
    stage = Timed(module if first else Later(module), index, work.stages, torch.device("cpu"))
    stage.lap = lap
    plan = SCHEDULES[schedule](stage, work.microbatches, loss_fn=loss_of)
    record = Record(busy={f"stage {index}": []})
    for batch in range(work.warm_up + work.batches):
        if batch == work.warm_up:
            record.begin()
        ids = work.ids(batch)
        losses: list[Tensor] = []
        given = (ids,) if first else ()
        plan.step(*given, target=ids if last else None, losses=losses, return_outputs=False)
        with lap():
            step.step(1e-3)
        record.ends.append(time.monotonic())
        record.busy[f"stage {index}"].append(lap.reset())
        if last:
            record.losses.append(float(torch.stack(losses).detach().mean()))
    record.finish()
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--schedule", choices=[*SCHEDULES, "both"], default="both")
    parser.add_argument("--in-turn", action="store_true", help="that row too")
    parser.add_argument("--rtt-ms", type=float, default=0.0, help="between hosts of a lab")
    parser.add_argument("--mbit", type=float, default=0.0, help="of each link of a lab")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_work(parser)
    args = parser.parse_args()
    if args.child:
        schedule, index, meeting, text = json.loads(args.child)
        work = Work.from_json(text)
        torch.set_num_threads(1)
        with meet(meeting, index, work.stages):
            serve(schedule, index, work).say()
        return
    rows = measure(args, work_of(args))
    if args.json:
        print(json.dumps([each.as_dict() for each in rows]))
    else:
        render(rows)


def measure(args: argparse.Namespace, work: Work) -> list[Row]:
    chosen = list(SCHEDULES) if args.schedule == "both" else [args.schedule]
    rows = [run_in_turn(work)] if args.in_turn else []
    if not args.rtt_ms and not args.mbit:
        return rows + [run_torch(schedule, work) for schedule in chosen]
    link = Link(delay_s=args.rtt_ms / 2000, rate=args.mbit * 1e6 / 8)
    for schedule in chosen:
        with Lab([f"stage{index}" for index in range(work.stages)], link) as lab:
            rows.append(run_torch(schedule, work, lab))
    return rows


if __name__ == "__main__":
    main()
