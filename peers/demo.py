"""A whole swarm on this machine: real processes, real text, one worker killed and one that joins.

The parent holds no tensors. It starts a bootstrap and workers from one preloaded server, follows
their event files, hurts the swarm at the planned moments, and writes what a run leaves behind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peers.collect import Tail, merge
from peers.gain import speedup
from peers.nursery import INVITE, RESULT, Child, Nursery
from peers.report import write_report
from peers.station import Stop
from peers.summary import Extra, summarise
from swarmnet.config import RunFile
from swarmnet.errors import StopRequested, SwarmnetError
from swarmnet.events import EventLog, FaultInjected

POLL_S = 0.2
START_S = 120.0
FINISH_S = 300.0
FINISH_THREADS = 2
KILL_AT, JOIN_AT = 1 / 3, 1 / 2
SOLO_S = 3600.0
LENGTHS = {"T": 1.0, "1.3T": 1.3}


@dataclass(frozen=True)
class DemoOptions:
    """``settings`` is the peer file of every worker, as a table."""

    run: RunFile
    out: Path
    workers: int = 4
    churn: bool = True
    alone: RunFile | None = None
    """What one worker alone trains afterwards, for comparison; None: nobody does."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    slow: Mapping[int, float] = field(default_factory=dict)
    """Index of a worker of the beginning -> how many times as long its steps take."""


class DemoFailed(SwarmnetError):
    """A process of the demo ended in a way that was not planned; the message says where to look."""


class Demo:
    """One run. ``show`` hears every event of every process, in about the order of time."""

    def __init__(
        self, options: DemoOptions, stop: Stop, show: Callable[[dict[str, Any]], None]
    ) -> None:
        self._options = options
        self._stop = stop
        self._show = show
        self._settings = dict(options.settings)
        self._folder = options.out / "peers"
        self._nursery = Nursery(self._folder)
        self._tail = Tail(options.out)
        self._log = EventLog(self._folder / "demo" / "events.jsonl", "demo")
        self._progress = 0.0
        self._finished: set[str] = set()
        self._workers: list[Child] = []
        self._killed: Child | None = None
        self._joined = False

    def run(self) -> dict[str, Any]:
        """The summary. Raises DemoFailed, or StopRequested after Ctrl-C."""
        try:
            invite = self._bootstrap()
            for index in range(self._options.workers):
                self._start_worker(index, invite)
            while not self._over():
                self._watch()
                self._churn(invite)
            merged = self._finish(invite)
            self._nursery.close()
            return self._write(merged["disagreement"])
        finally:
            self._nursery.close()
            self._log.close()

    # ---- processes ------------------------------------------------------------------------------

    def _bootstrap(self) -> str:
        child = self._nursery.start(
            "bootstrap", "bootstrap_child", self._options.run.raw, self._settings
        )
        path = child.out / INVITE
        self._await(path.exists, child, "the bootstrap")
        return path.read_text().strip()

    def _start_worker(self, index: int, invite: str) -> Child:
        settings = self._settings | {"slowdown": self._options.slow.get(index, 1.0)}
        child = self._nursery.start(f"worker-{index}", "worker_child", invite, settings)
        self._workers.append(child)
        return child

    def _await(self, ready: Callable[[], bool], child: Child, what: str) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            self._watch()
            if not child.running or time.monotonic() > deadline:
                raise DemoFailed(f"{what} did not start: {child.last_words()} ({child.out})")

    def _watch(self) -> None:
        """Sleep a little, then take in what the processes wrote. Raises StopRequested."""
        if self._stop.wait(POLL_S):
            raise StopRequested(f"stopped by {self._stop.reason}")
        for event in self._tail.poll():
            self._show(event)
            if event["event"] == "step":
                self._progress = max(self._progress, event["progress"])
            elif event["event"] == "peer_finished":
                self._finished.add(event["peer"])

    def _over(self) -> bool:
        """Everybody alive is done. Raises DemoFailed when a worker ended without being told to."""
        waiting = False
        for child in self._workers:
            if child is self._killed or child.name in self._finished:
                continue
            if not child.running:
                raise DemoFailed(f"{child.name} ended: {child.last_words()} ({child.out})")
            waiting = True
        return not waiting

    def _churn(self, invite: str) -> None:
        if not self._options.churn or self._options.workers < 2:
            return
        if self._killed is None and self._progress >= KILL_AT:
            self._killed = self._workers[victim(self._options)]
            self._killed.kill()
            self._log.emit(FaultInjected("kill", self._killed.name))
        if not self._joined and self._progress >= JOIN_AT:
            self._joined = True
            index = self._options.workers
            self._log.emit(FaultInjected("join", f"worker-{index}"))
            self._start_worker(index, invite)

    # ---- the end --------------------------------------------------------------------------------

    def _finish(self, invite: str) -> dict[str, Any]:
        settings = self._settings | {"threads": FINISH_THREADS}
        model = str(self._options.out / "model")
        child = self._nursery.start("finish", "finish_child", invite, model, settings)
        self._await_end(child, FINISH_S, "the merge")
        result: dict[str, Any] = json.loads((child.out / RESULT).read_text())
        return result

    def _write(self, disagreement: float) -> dict[str, Any]:
        out = self._options.out
        events = merge(out, out / "events.jsonl")
        cadence = self._options.run.config.cadence.config("cadence")
        extra = Extra(getattr(cadence, "begin_at", 0.0), disagreement)
        summary = summarise(events, extra)
        if self._options.alone is not None:
            solo = self._train_alone(self._options.alone, round(summary["steps"]))
            gain = speedup(summary["eval"]["merged"], *(ends(solo[label]) for label in LENGTHS))
            summary = summarise(events, replace(extra, solo=solo, speedup=gain))
        (out / "summary.json").write_text(json.dumps(summary, indent=1))
        write_report(out / "report.html", events, summary)
        return summary

    def _train_alone(self, run: RunFile, steps: int) -> dict[str, Any]:
        """One worker alone for as many steps as a worker of the swarm took, and for 1.3 times."""
        children = {
            label: self._nursery.start(
                f"alone-{label}", "solo_child", run.raw, round(times * steps), self._settings
            )
            for label, times in LENGTHS.items()
        }
        results = {}
        for label, child in children.items():
            self._await_end(child, SOLO_S, f"the worker alone ({label})")
            results[label] = json.loads((child.out / RESULT).read_text())
        return results

    def _await_end(self, child: Child, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while child.running and time.monotonic() < deadline:
            self._watch()
        self._watch()
        if child.exit_code != 0:
            raise DemoFailed(f"{what} failed: {child.last_words()} ({child.out})")


def victim(options: DemoOptions) -> int:
    """Who is killed: the second worker, or the first after it that nobody has slowed."""
    second = range(1, options.workers)
    return next((index for index in second if index not in options.slow), 1)


def ends(result: Mapping[str, Any]) -> tuple[int, float]:
    """(steps, loss) of a worker alone."""
    return result["steps"], result["loss"]
