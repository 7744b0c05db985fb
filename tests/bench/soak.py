"""Half an hour of real processes that are killed and frozen: nobody stuck, memory flat?

A bootstrap and six workers train a tiny model. Every 20 seconds on the mean one of the workers,
drawn at random, is killed (and started again in its folder 3 to 8 s later, where its own checkpoint
lies) or stopped for 5 to 30 s, by the lab of `peers/storm`; the kernel ends the daemon of a killed
one, the daemon of a stopped one goes on. The bootstrap is never hurt, and the last minute is quiet;
the run's time limit ends it, with its consensus phase. Ends with code 1 if a worker was stuck for a
minute while nothing was done to it, ended with a bug, or did not finish.

``no step``, ``no window``: longest time without one, dead and frozen time taken off; ``back``:
longest time from a restart or thaw to the next meeting. A pending meeting that never becomes
``late`` was either not applied by the partner, or its question was given up or died with the asker.

Example: python tests/bench/soak.py --picture docs/soak.svg
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from procfs import children, resident_bytes
from soak_picture import draw
from soak_record import Life, Record, Sample, Worker, judge, render

from peers.collect import Tail
from peers.nursery import INVITE, OUTPUT, Child, Nursery
from peers.storm.lab import Lab
from peers.storm.plan import Kill, Lasting, Span, StormConfig
from swarmnet.config import RunFile
from swarmnet.events import FaultInjected

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
REST_S, FROZEN_S = Span(least=3, most=8), Span(least=5, most=30)
AGAIN_S = 8.0
LONG_S = 300.0
SIGNS = ("Traceback (most recent call last)", "never retrieved", "never awaited", "Fatal Python")


def storm(every_s: float) -> StormConfig:
    """Kills and freezes in equal shares, together one every so many seconds on the mean."""
    kill = Kill(every_s=2 * every_s, then="returns", for_s=REST_S)
    return StormConfig(kill=kill, freeze=Lasting(every_s=2 * every_s, for_s=FROZEN_S))


class Soak:
    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._lasts_s = 60 * options.minutes
        overrides = [*OVERRIDES, f"target.minutes={options.minutes}"]
        self._run = RunFile.load(RUN, overrides)
        self._nursery = Nursery(folder / "peers")
        self._tail = Tail(folder)
        self._lab = Lab(storm(options.every), options.seed, folder, self._fork, self._note)
        self._lab.hands.before_kill = self._look_at_daemons
        self._workers: dict[str, Worker] = {}
        self._again: dict[str, float] = {}
        """When to start those again that ended with a bug."""
        self._daemons: dict[str, list[int]] = {}
        """Daemons that must have gone with their worker."""
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
            while not self._over(began):
                self._watch()
                if time.time() - began < self._lasts_s - QUIET_S:
                    self._lab.tend()
                else:
                    self._lab.heal()
            self._end()
            now = time.time()
            trained = self._trained or now
            workers = list(self._workers.values())
            return Record(began, trained, now, workers, self._first, self._orphans)
        finally:
            self._lab.close()
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
            self._fork(f"worker-{index}")
        self._await(lambda: all(w.windows() for w in self._workers.values()), "first meetings")

    def _fork(self, name: str) -> Child:
        self._orphans += sum(_alive(pid) for pid in self._daemons.pop(name, ()))
        self._workers.setdefault(name, Worker(name)).lives.append(Life(time.time()))
        child = self._nursery.start(name, "worker_child", self._invite, SETTINGS)
        self._lab.enter(child)
        return child

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
        busy = self._again or self._lab.ward.away
        return not busy and not any(child.running for child in self._children)

    def _end(self) -> None:
        self._watch()
        for child in self._children:
            worker = self._workers[child.name]
            if worker.lives[-1].ended is None and not child.running:
                self._note_end(child)
            worker.bugs += _bugs(child.out / OUTPUT)

    @property
    def _children(self) -> list[Child]:
        return list(self._lab.hands.children.values())

    # ---- while it runs --------------------------------------------------------------------------

    def _watch(self) -> None:
        """Sleep a little, take in what happened, start again who ended with a bug."""
        time.sleep(POLL_S)
        for event in self._tail.poll():
            self._lab.hear(event)
            if event["peer"] in self._workers:
                self._workers[event["peer"]].take(event)
                self._note_trained(event)
        now = time.time()
        for child in self._children:
            self._care(child, now)
        if now >= self._next_sample:
            self._next_sample = now + SAMPLE_S
            self._sample(now)

    def _note_trained(self, event: dict[str, Any]) -> None:
        """The first that goes over to the consensus phase tells that the time is up."""
        over = event["event"] == "peer_finished" or event.get("phase") == "consensus"
        if over and self._trained is None:
            self._trained = event["time"]

    def _care(self, child: Child, now: float) -> None:
        life = self._workers[child.name].lives[-1]
        if life.ended is None and not child.running:
            self._note_end(child)
            if life.exit_code != 0:
                self._again[child.name] = now + AGAIN_S
        elif now >= self._again.get(child.name, math.inf):
            del self._again[child.name]
            self._fork(child.name)

    def _note_end(self, child: Child) -> None:
        """It ended and nobody killed it: 0 is the end of the run, all else should not be."""
        worker = self._workers[child.name]
        life = worker.lives[-1]
        life.ended, life.exit_code = time.time(), child.exit_code
        if life.exit_code != 0:
            worker.bugs.append(f"ended with {life.exit_code}: {child.last_words()}")

    def _look_at_daemons(self, child: Child) -> None:
        self._daemons[child.name] = children(child.pid)

    def _note(self, fault: FaultInjected) -> None:
        """What the lab has just done to a worker."""
        worker, now = self._workers[fault.subject], time.time()
        if fault.kind == "kill" and not fault.over:
            life = worker.lives[-1]
            life.ended, life.killed, life.exit_code = now, True, -signal.SIGKILL
        elif fault.kind == "freeze":
            begun = worker.freezes.pop()[0] if fault.over else now
            worker.freezes.append((begun, now if fault.over else now + fault.seconds))
        if not fault.over:
            met = sum(len(one.windows()) for one in self._workers.values())
            said = f"{fault.kind:6} {fault.subject} for {fault.seconds:4.1f} s"
            print(f"{said}  windows so far {met}", file=sys.stderr, flush=True)

    def _sample(self, now: float) -> None:
        lives = [(child, self._workers[child.name].lives[-1]) for child in self._children]
        for child, life in [*lives, (self._bootstrap, self._first)]:
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
