"""A whole pipeline on this machine: stages served by several peers each, and trainers.

One peer moves to where it is needed, one is killed, one joins, and no sample is lost or counted
twice. The parent holds no tensors; see ``peers/demo.py`` for the swarm of whole models.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers.brood import Brood
from peers.collect import merge
from peers.nursery import Child
from peers.pipeline.churn import Churn, spread
from peers.pipeline.page import page
from peers.pipeline.story import recount
from peers.pipeline.summary import summarise
from peers.report import write
from peers.slow import Slow
from peers.stop import Stop
from peers.story import Record
from swarmnet.config import RunFile


@dataclass(frozen=True)
class PipelineOptions:
    """``peers`` serve the stages, ``trainers`` read the text; ``settings``: everybody's peer file.

    With fewer than two peers a stage nobody is hurt.
    """

    run: RunFile
    out: Path
    peers: int
    trainers: int = 1
    churn: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    slow: Slow = field(default_factory=Slow)
    """Index of a stage peer of the beginning -> how many times as long its work takes."""


class PipelineDemo:
    """One run. ``show`` hears every event of every process, in about the order of time."""

    def __init__(
        self, options: PipelineOptions, stop: Stop, show: Callable[[Record], None]
    ) -> None:
        self._options = options
        self._show = show
        self._brood = Brood(options.out, options.settings, stop, self._hear)
        run = options.run.config
        self._stages = run.pipeline.stages
        self._churning = options.churn and options.peers >= 2 * self._stages
        self._churn = Churn(self._stages, run.membership.renew_s)
        self._finished: set[str] = set()
        self._children: dict[str, Child] = {}
        self._killed = ""

    def run(self) -> dict[str, Any]:
        """The summary. Raises DemoFailed, or StopRequested after Ctrl-C."""
        options = self._options
        try:
            invite = self._brood.bootstrap(options.run.raw)
            counts = spread(options.peers, self._stages, lopsided=self._churning)
            first = [stage for stage, count in enumerate(counts) for _ in range(count)]
            for index, stage in enumerate(first):
                self._start_peer(index, invite, stage)
            for index in range(options.trainers):
                self._start(f"trainer-{index}", "trainer_child", invite, self._brood.settings)
            while not self._over():
                self._brood.watch()
                if self._churning:
                    self._hurt(invite)
            ending = self._brood.finish("join_child", invite)
            self._brood.close()
            return self._write(ending)
        finally:
            self._brood.close()

    def _start_peer(self, index: int, invite: str, stage: int | None) -> None:
        settings = self._brood.settings | {"slowdown": self._options.slow[index]}
        self._start(f"peer-{index}", "stage_child", invite, settings, stage)

    def _start(self, name: str, work: str, *arguments: Any) -> None:
        self._children[name] = self._brood.start(name, work, *arguments)

    def _hear(self, event: Record) -> None:
        self._show(event)
        self._churn.hear(event)
        if event["event"] == "peer_finished":
            self._finished.add(event["peer"])

    def _over(self) -> bool:
        """Everybody alive is done. Raises DemoFailed when one ended without being told to."""
        open_ = self._children.keys() - self._finished - {self._killed}
        for name in open_:
            self._brood.check(self._children[name])
        return not open_

    def _hurt(self, invite: str) -> None:
        due = self._churn.due(time.monotonic())
        if due == "kill":
            self._killed = self._churn.victim() or ""
            self._brood.kill(self._children[self._killed])
        elif due == "join":
            self._brood.hurt("join", f"peer-{self._options.peers}")
            self._start_peer(self._options.peers, invite, None)

    def _write(self, ending: Mapping[str, Any]) -> dict[str, Any]:
        out = self._options.out
        events = merge(out, out / "events.jsonl")
        summary = summarise(events, ending)
        (out / "summary.json").write_text(json.dumps(summary, indent=1))
        write(out / "report.html", page(recount(events), summary))
        return summary
