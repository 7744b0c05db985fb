"""Half an hour of real processes that are killed and frozen: nobody stuck, memory flat?

A bootstrap and six workers train a tiny model. Every 20 seconds one of the workers, drawn at
random, is killed (and started again in its folder 3 to 8 s later, where its own checkpoint lies) or
stopped for 5 to 30 s; the kernel ends the daemon of a killed one, the daemon of a stopped one goes
on. The bootstrap is never hurt, and the last minute is quiet; the run's time limit ends it, with
its consensus phase. Ends with code 1 if a worker was stuck for a minute while nothing was done to
it, ended with a bug, or did not finish.

``no step``, ``no window``: longest time without one, dead and frozen time taken off; ``back``:
longest time from a restart or thaw to the next meeting. A pending meeting that never becomes
``late`` was either not applied by the partner, or its question was given up or died with the asker.

Example: python tests/bench/soak.py --picture docs/soak.svg
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from procfs import children, resident_bytes
from soak_picture import draw
from soak_record import Life, Record, Sample, Worker, judge, render

from peers.collect import Tail
from peers.nursery import INVITE, OUTPUT, Child, Nursery
from swarmnet.config import RunFile

RUN = Path(__file__).parents[1] / "swarm" / "tiny.toml"
# Steps of some 10 ms, so that six workers on two cores leave the meetings some air. Not by pacing:
# a step that was frozen would be paced as if it had computed all the while.
OVERRIDES = (
    "target.tokens=1000000000000",
    "membership.renew_s=2",
    "batch.sequences=32",
)
SETTINGS = {
    "threads": 1,
    "host": "127.0.0.1",
    "device": "cpu",
    "checkpoint_s": 5.0,
    "serve_s": 20.0,
}
QUIET_S = 60.0
START_S, FINISH_S = 120.0, 90.0
POLL_S, SAMPLE_S = 0.2, 10.0
REST_S, FROZEN_S = (3.0, 8.0), (5.0, 30.0)
LONG_S = 300.0
SIGNS = ("Traceback (most recent call last)", "never retrieved", "never awaited", "Fatal Python")


@dataclass(frozen=True)
class Fault:
    """``at`` seconds after the start ``kind`` hurts the worker at share ``whom`` of the healthy."""

    at: float
    kind: str
    whom: float
    seconds: float


def plan(seed: int, lasts_s: float, every_s: float) -> Iterator[Fault]:
    rng = random.Random(seed)
    at = every_s
    while at <= lasts_s - QUIET_S:
        kind = rng.choice(("kill", "freeze"))
        yield Fault(at, kind, rng.random(), rng.uniform(*(REST_S if kind == "kill" else FROZEN_S)))
        at += every_s


@dataclass
class Patient:
    """A worker, the process that it is now, and what must be done to it next."""

    worker: Worker
    child: Child
    due: float | None = None
    """When to start or thaw it; None while it is healthy."""
    frozen: bool = False
    daemons: list[int] = field(default_factory=list)
    """Daemons that must have gone with their worker."""

    @property
    def life(self) -> Life:
        return self.worker.lives[-1]


class Soak:
    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._lasts_s = 60 * options.minutes
        overrides = [*OVERRIDES, f"target.minutes={options.minutes}"]
        self._run = RunFile.load(RUN, overrides)
        self._nursery = Nursery(folder / "peers")
        self._tail = Tail(folder)
        self._patients: list[Patient] = []
        self._bootstrap: Child
        self._invite = ""
        self._trained: float | None = None
        self._orphans = 0
        self._next_sample = 0.0
        self._first = Life(time.time())

    def run(self) -> Record:
        try:
            self._start()
            began = time.time()
            faults = list(plan(self._options.seed, self._lasts_s, self._options.every))
            while not self._over(began):
                self._watch()
                if faults and time.time() - began >= faults[0].at:
                    self._hurt(faults.pop(0))
            self._end()
            workers = [patient.worker for patient in self._patients]
            now = time.time()
            trained = self._trained or now
            return Record(began, trained, now, workers, self._first, self._orphans)
        finally:
            for patient in self._patients:
                if patient.frozen:
                    os.kill(patient.child.pid, signal.SIGCONT)
            self._nursery.close()

    # ---- start and end --------------------------------------------------------------------------

    def _start(self) -> None:
        self._bootstrap = self._nursery.start(
            "bootstrap", "bootstrap_child", self._run.raw, SETTINGS
        )
        path = self._bootstrap.out / INVITE
        self._await(path.exists, "invite")
        self._invite = path.read_text().strip()
        for index in range(self._options.workers):
            worker = Worker(f"worker-{index}")
            self._patients.append(Patient(worker, self._fork(worker)))
        self._await(lambda: all(p.worker.windows() for p in self._patients), "first meetings")

    def _fork(self, worker: Worker) -> Child:
        worker.lives.append(Life(time.time()))
        return self._nursery.start(worker.name, "worker_child", self._invite, SETTINGS)

    def _await(self, ready: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            self._watch()
            if time.monotonic() > deadline:
                words = [child.last_words() for child in self._nursery.children]
                raise SystemExit(f"no {what} within {START_S:.0f} s: {words}")

    def _over(self, began: float) -> bool:
        if time.time() - began > self._lasts_s + FINISH_S:
            return True
        return all(p.due is None and not p.child.running for p in self._patients)

    def _end(self) -> None:
        self._watch()
        for patient in self._patients:
            if patient.life.ended is None and not patient.child.running:
                self._note_end(patient)
            patient.worker.bugs += _bugs(patient.child.out / OUTPUT)

    # ---- while it runs --------------------------------------------------------------------------

    def _watch(self) -> None:
        """Sleep a little, take in what happened, do what is due."""
        time.sleep(POLL_S)
        workers = {patient.worker.name: patient.worker for patient in self._patients}
        for event in self._tail.poll():
            if event["peer"] in workers:
                workers[event["peer"]].take(event)
                self._note_trained(event)
        now = time.time()
        for patient in self._patients:
            self._care(patient, now)
        if now >= self._next_sample:
            self._next_sample = now + SAMPLE_S
            self._sample(now)

    def _note_trained(self, event: dict[str, Any]) -> None:
        """The first that goes over to the consensus phase tells that the time is up."""
        over = event["event"] == "peer_finished" or event.get("phase") == "consensus"
        if over and self._trained is None:
            self._trained = event["time"]

    def _care(self, patient: Patient, now: float) -> None:
        if patient.due is None:
            if patient.life.ended is None and not patient.child.running:
                self._note_end(patient)
                if patient.life.exit_code != 0:
                    patient.due = now + REST_S[1]
        elif now >= patient.due:
            patient.due = None
            if patient.frozen:
                os.kill(patient.child.pid, signal.SIGCONT)
                patient.frozen = False
                patient.worker.freezes[-1] = (patient.worker.freezes[-1][0], now)
            else:
                self._orphans += sum(_alive(pid) for pid in patient.daemons)
                patient.child = self._fork(patient.worker)
                patient.daemons = []

    def _note_end(self, patient: Patient) -> None:
        """It ended and nobody killed it: 0 is the end of the run, all else should not be."""
        life, child = patient.life, patient.child
        life.ended, life.exit_code = time.time(), child.exit_code
        if life.exit_code != 0:
            patient.worker.bugs.append(f"ended with {life.exit_code}: {child.last_words()}")

    def _hurt(self, fault: Fault) -> None:
        healthy = [p for p in self._patients if p.due is None and p.child.running]
        if not healthy:
            return
        patient = healthy[int(fault.whom * len(healthy))]
        now = time.time()
        patient.due = now + fault.seconds
        if fault.kind == "kill":
            patient.daemons = children(patient.child.pid)
            patient.child.kill()
            patient.child.join(5.0)
            patient.life.ended, patient.life.killed = now, True
            patient.life.exit_code = patient.child.exit_code
        else:
            os.kill(patient.child.pid, signal.SIGSTOP)
            patient.frozen = True
            patient.worker.freezes.append((now, patient.due))
        met = sum(len(p.worker.windows()) for p in self._patients)
        print(
            f"{fault.at:6.0f} s  {fault.kind:6} {patient.worker.name} for {fault.seconds:4.1f} s"
            f"  windows so far {met}",
            file=sys.stderr,
            flush=True,
        )

    def _sample(self, now: float) -> None:
        pairs = [(p.child, p.life) for p in self._patients]
        for child, life in [*pairs, (self._bootstrap, self._first)]:
            if life.ended is None and child.running:
                daemon = sum(resident_bytes(pid) for pid in children(child.pid))
                life.samples.append(Sample(now, resident_bytes(child.pid), daemon))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _bugs(output: Path) -> list[str]:
    """What a worker's processes printed that no sound process prints."""
    lines = output.read_text(errors="replace").splitlines() if output.exists() else []
    found = [n for n, line in enumerate(lines) if any(sign in line for sign in SIGNS)]
    return [f"{output}:{n + 1}: {lines[n]}" for n in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between faults")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the run's folder here; it must be new")
    parser.add_argument("--picture", type=Path, help="write an SVG here")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    # Whoever ends the soak early must not leave a stopped worker behind: `run` thaws them.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="swarmnet-soak-") as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=options.out is None)
        record = Soak(options, folder).run()
        if options.out:
            (folder / "soak.json").write_text(json.dumps(asdict(record)))
    figures = judge(record, min(LONG_S, 60 * options.minutes / 3))
    if options.picture:
        options.picture.write_text(draw(record))
    print(json.dumps(figures) if options.json else render(figures))
    sys.exit(1 if figures["problems"] else 0)


if __name__ == "__main__":
    main()
