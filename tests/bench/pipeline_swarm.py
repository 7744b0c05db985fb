"""swarmnet's side of ``pipeline.py``: stage peers and a trainer as users start them.

Everything crosses libp2p's encrypted streams; the daemons' processor time has a row of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import procfs
import tomli_w
from pipeline_work import ANSWER_S, Row, Work

from peers import children
from peers.nursery import INVITE
from tests.netlab.lab import Lab, enter

POLL_S = 0.5
"""Each look costs processor time that the swarm lacks."""


@dataclass(frozen=True)
class Way:
    """How the swarm does the work."""

    name: str = "swarmnet"
    codec: str = "raw"
    spare: int = 0
    """Peers of each stage beyond the first."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the run file's [pipeline]."""


def run_swarm(work: Work, way: Way, lab: Lab | None = None) -> Row:
    """One trainer; the slow stage of ``work`` has one slow peer. Raises RuntimeError."""
    folder = Path(tempfile.mkdtemp(prefix="bench-pipeline-"))
    swarm = _Swarm(work, way, lab, folder)
    try:
        swarm.start()
        return swarm.measure()
    finally:
        swarm.end()
        shutil.rmtree(folder, ignore_errors=True)


def run_table(work: Work, way: Way) -> dict[str, Any]:
    """The run file: the same model, microbatches and global batch as everybody's."""
    model = work.model().config
    return {
        "schema": 1,
        "name": "bench",
        "target": {"tokens": 1 << 50, "minutes": 1000.0},
        "batch": {"sequences": work.sequences, "length": work.tokens},
        "pipeline": {
            "stages": work.stages,
            "batch": work.sequences_per_batch,
            "floor": 1,
            **way.settings,
        },
        "boundary": {"name": "plain", "codec": way.codec},
        "membership": {"renew_s": 2.0},
        "model": {"name": "causal_lm", **model.model_dump(exclude_defaults=True)},
    }


class _Swarm:
    def __init__(self, work: Work, way: Way, lab: Lab | None, folder: Path) -> None:
        self._work, self._way, self._lab, self._folder = work, way, lab, folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["peers.preload"])
        self._processes: dict[str, Any] = {}
        self._read: dict[Path, int] = {}
        self._lines: dict[str, list[dict[str, Any]]] = {}

    def start(self) -> None:
        work, table = self._work, run_table(self._work, self._way)
        raw = tomli_w.dumps(table).encode()
        self._spawn("bootstrap", self._host(0), "bootstrap_child", raw, self._settings(1.0))
        path = self._folder / "bootstrap" / INVITE
        _await(path.exists, "the bootstrap's invite")
        invite = path.read_text().strip()
        slow, times = work.slow
        for stage in range(work.stages):
            for number in range(1 + self._way.spare):
                slowdown = times if stage == slow and number == 0 else 1.0
                name = f"stage {stage}.{number}"
                place = self._host(stage + work.stages * number)
                self._spawn(name, place, "stage_child", invite, self._settings(slowdown), stage)
        host = self._host(-1)
        self._spawn("trainer", host, "trainer_child", invite, self._settings(1.0))

    def measure(self) -> Row:
        """From the step that ends the warm-up until ``batches`` more."""
        work = self._work
        first, last = work.warm_up, work.warm_up + work.batches
        _await(lambda: self._steps() > first, "the first steps", ANSWER_S)
        cpu, written = self._cpu(), self._written()
        _await(lambda: self._steps() > last, "the last steps", ANSWER_S)
        now, wrote = self._cpu(), self._written()
        return self._row(
            {name: (now[name] - cpu[name]) / work.batches for name in cpu},
            (wrote - written) // work.batches,
        )

    def end(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join(10)
            process.kill()

    # ---- inside -----------------------------------------------------------------------------

    def _settings(self, slowdown: float) -> dict[str, Any]:
        host = "0.0.0.0" if self._lab else "127.0.0.1"
        return {
            "threads": 1,
            "device": "cpu",
            "host": host,
            "serve_s": 0.0,
            "slowdown": slowdown,
            "checkpoint_s": 3600.0,
        }

    def _host(self, number: int) -> str:
        """A namespace; a machine of its own for each peer."""
        return self._lab.namespace(self._lab.hosts[number]) if self._lab else ""

    def _spawn(self, name: str, namespace: str, child: str, *arguments: Any) -> None:
        target = self._context.Process(
            target=_live, args=(namespace, child, self._folder / name, arguments), daemon=False
        )
        target.start()
        self._processes[name] = target

    def _events(self, kind: str) -> list[dict[str, Any]]:
        for path in self._folder.glob("*/events.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in map(json.loads, whole.splitlines()):
                self._lines.setdefault(line["event"], []).append(line)
        return sorted(self._lines.get(kind, []), key=lambda line: float(line["time"]))

    def _commits(self, stage: int) -> list[tuple[float, int]]:
        """(when, samples) of each step of a stage, told by whoever told first."""
        seen: dict[int, tuple[float, int]] = {}
        for line in self._events("stage_step"):
            if line["stage"] == stage:
                seen.setdefault(line["step"], (line["time"], line["samples"]))
        return [seen[step] for step in sorted(seen)]

    def _steps(self) -> int:
        dead = [name for name, process in self._processes.items() if process.exitcode]
        if dead:
            raise RuntimeError(f"{dead[0]} ended; see {self._folder / dead[0]}")
        return min(len(self._commits(stage)) for stage in range(self._work.stages))

    def _cpu(self) -> dict[str, float]:
        """Processor seconds of each peer's Python, and of all daemons together."""
        pids = {name: process.pid for name, process in self._processes.items()}
        return {name: procfs.cpu_seconds(pid) for name, pid in pids.items()} | {
            "libp2p daemons": sum(map(procfs.cpu_seconds, self._daemons()))
        }

    def _daemons(self) -> list[int]:
        return [pid for p in self._processes.values() for pid in procfs.children(p.pid)]

    def _written(self) -> int:
        if self._lab:
            return sum(each.bytes for each in self._lab.carried().values())
        return sum(map(procfs.written_bytes, self._daemons())) // 2  # to the net, and to the peer

    def _row(self, cpu_s: dict[str, float], wire_bytes: int) -> Row:
        work = self._work
        last = [self._commits(stage)[work.warm_up :] for stage in range(work.stages)]
        rates = [
            work.sequences * sum(samples for _, samples in each[1:]) / (each[-1][0] - each[0][0])
            for each in last
        ]
        gaps = [b[0] - a[0] for each in last for a, b in pairwise(each)]
        loads = self._events("stage_load")
        busy: dict[str, list[float]] = {}
        for line in loads:
            if line["sequences"]:
                per_batch = line["busy_s"] / line["sequences"] * work.sequences_per_batch
                busy.setdefault(f"stage {line['stage']}", []).append(per_batch)
        losses = [line["loss"] for line in self._events("trips") if line["trips"]]
        return Row(
            name=self._way.name,
            work=work,
            sequences_per_s=min(rates),
            batch_s=work.sequences_per_batch / min(rates),
            worst_s=max(gaps),
            loss=losses[-1],
            cpu_s=cpu_s,
            busy_s={stage: statistics.median(laps) for stage, laps in busy.items()},
            wire_bytes=wire_bytes,
        )


def _live(namespace: str, child: str, out: Path, arguments: Sequence[Any]) -> None:
    """A peer in its own process, on its own host."""
    if namespace:
        enter(namespace)
    raise SystemExit(getattr(children, child)(out, *arguments))


def _await(ready: Any, what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come in {seconds:.0f} s")
        time.sleep(POLL_S)
