"""A whole swarm on this machine: real processes, real text, one worker killed and one that joins.

The parent holds no tensors. It starts a bootstrap and workers from one preloaded server, follows
their event files, hurts the swarm at the planned moments, and writes what a run leaves behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peers.brood import Brood
from peers.collect import merge
from peers.gain import speedup
from peers.nursery import Child
from peers.report import write_report
from peers.station import Stop
from peers.summary import Extra, summarise
from swarmnet.config import RunFile

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


class Demo:
    """One run. ``show`` hears every event of every process, in about the order of time."""

    def __init__(
        self, options: DemoOptions, stop: Stop, show: Callable[[dict[str, Any]], None]
    ) -> None:
        self._options = options
        self._show = show
        self._brood = Brood(options.out, options.settings, stop, self._hear)
        self._progress = 0.0
        self._finished: set[str] = set()
        self._workers: list[Child] = []
        self._killed: Child | None = None
        self._joined = False

    def run(self) -> dict[str, Any]:
        """The summary. Raises DemoFailed, or StopRequested after Ctrl-C."""
        try:
            invite = self._brood.bootstrap(self._options.run.raw)
            for index in range(self._options.workers):
                self._start_worker(index, invite)
            while not self._over():
                self._brood.watch()
                self._churn(invite)
            merged = self._brood.finish("finish_child", invite)
            self._brood.close()
            return self._write(merged["disagreement"])
        finally:
            self._brood.close()

    # ---- processes ------------------------------------------------------------------------------

    def _start_worker(self, index: int, invite: str) -> None:
        settings = self._brood.settings | {"slowdown": self._options.slow.get(index, 1.0)}
        child = self._brood.start(f"worker-{index}", "worker_child", invite, settings)
        self._workers.append(child)

    def _hear(self, event: dict[str, Any]) -> None:
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
            self._brood.check(child)
            waiting = True
        return not waiting

    def _churn(self, invite: str) -> None:
        if not self._options.churn or self._options.workers < 2:
            return
        if self._killed is None and self._progress >= KILL_AT:
            self._killed = self._workers[victim(self._options)]
            self._brood.kill(self._killed)
        if not self._joined and self._progress >= JOIN_AT:
            self._joined = True
            index = self._options.workers
            self._brood.hurt("join", f"worker-{index}")
            self._start_worker(index, invite)

    # ---- the end --------------------------------------------------------------------------------

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
        settings = self._brood.settings
        children = {
            label: self._brood.start(
                f"alone-{label}", "solo_child", run.raw, round(times * steps), settings
            )
            for label, times in LENGTHS.items()
        }
        return {
            label: self._brood.result(child, SOLO_S, f"the worker alone ({label})")
            for label, child in children.items()
        }


def victim(options: DemoOptions) -> int:
    """Who is killed: the second worker, or the first after it that nobody has slowed."""
    second = range(1, options.workers)
    return next((index for index in second if index not in options.slow), 1)


def ends(result: Mapping[str, Any]) -> tuple[int, float]:
    """(steps, loss) of a worker alone."""
    return result["steps"], result["loss"]
