"""A whole swarm on this machine: real processes, real text, one worker killed and one that joins.

A storm may take the place of that one kill and that one join.
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
from peers.slow import Slow
from peers.stop import Stop
from peers.storm.lab import WEATHER, Lab
from peers.storm.plan import StormConfig
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
    slow: Slow = field(default_factory=Slow)
    storm: StormConfig | None = None
    """What is done to the workers; None: one kill and one join, if there is to be ``churn``."""


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
        self._workers: dict[str, Child] = {}
        self._killed: Child | None = None
        self._joined = False
        self._invite = ""
        self._storm = self._brew()

    def run(self) -> dict[str, Any]:
        """The summary. Raises DemoFailed, or StopRequested after Ctrl-C."""
        try:
            self._invite = self._brood.bootstrap(self._options.run.raw)
            for index in range(self._options.workers):
                self._start_worker(f"worker-{index}")
            while not self._over():
                self._brood.watch()
                self._churn()
            merged = self._brood.finish("finish_child", self._invite)
            self._close()
            return self._write(merged["disagreement"])
        finally:
            self._close()

    def _close(self) -> None:
        if self._storm is not None:
            self._storm.close()
        self._brood.close()

    # ---- processes ------------------------------------------------------------------------------

    def _brew(self) -> Lab | None:
        storm, out = self._options.storm, self._options.out
        if storm is None:
            return None
        lab = Lab(storm, self._options.run.config.seed, out, self._start_worker, self._brood.note)
        self._brood.settings["weather"] = str(out.absolute() / WEATHER)
        return lab

    def _start_worker(self, name: str) -> Child:
        """A new process in the folder of that name, which may hold a checkpoint."""
        number = int(name.removeprefix("worker-"))
        settings = self._brood.settings | {"slowdown": self._options.slow[number]}
        child = self._brood.start(name, "worker_child", self._invite, settings)
        self._workers[name] = child
        if self._storm is not None:
            self._storm.enter(child)
        return child

    def _hear(self, event: dict[str, Any]) -> None:
        self._show(event)
        if self._storm is not None:
            self._storm.hear(event)
        if event["event"] == "step":
            self._progress = max(self._progress, event["progress"])
        elif event["event"] == "peer_finished":
            self._finished.add(event["peer"])

    def _over(self) -> bool:
        """Everybody alive is done. Raises DemoFailed when a worker ended without being told to."""
        waiting = False
        for name, child in list(self._workers.items()):
            if name in self._finished or self._is_dead(child):
                continue
            if not self._is_away(child):
                self._brood.check(child)
            waiting = True
        return not waiting

    def _is_dead(self, child: Child) -> bool:
        """It was killed for good."""
        if self._storm is None:
            return child is self._killed
        return child.name in self._storm.ward.dead

    def _is_away(self, child: Child) -> bool:
        """It is to come back, or has just been started again."""
        storm = self._storm
        if storm is None or child.running:
            return False
        return child.name in storm.ward.away or storm.excuse(child.name)

    def _churn(self) -> None:
        if self._storm is not None:
            self._weather_the_storm(self._storm)
        elif self._options.churn and self._options.workers > 1:
            self._kill_and_join()

    def _weather_the_storm(self, storm: Lab) -> None:
        """From the first step on; the end of the run and its consensus phase are quiet."""
        assert self._options.storm is not None
        if self._progress >= 1 - self._options.storm.quiet:
            storm.heal()
        elif self._progress > 0:
            storm.tend()

    def _kill_and_join(self) -> None:
        if self._killed is None and self._progress >= KILL_AT:
            self._killed = self._workers[f"worker-{victim(self._options)}"]
            self._brood.kill(self._killed)
        if not self._joined and self._progress >= JOIN_AT:
            self._joined = True
            name = f"worker-{self._options.workers}"
            self._brood.hurt("join", name)
            self._start_worker(name)

    # ---- the end --------------------------------------------------------------------------------

    def _write(self, disagreement: float) -> dict[str, Any]:
        out = self._options.out
        events = merge(out, out / "events.jsonl")
        cadence = self._options.run.config.cadence.config("cadence")
        begin_at, h = getattr(cadence, "begin_at", 0.0), getattr(cadence, "h", None)
        extra = Extra(begin_at, disagreement, h=h)
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
