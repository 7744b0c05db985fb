"""The live view of a pipeline: stages and who serves them, trainers and their trips, the loss.

A stage peer or a trainer that shows only itself uses it too: it then has one row.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from peers.board import Board, nats
from peers.story import Record
from peers.units import amount, percent, printable, size

RATE_REPORTS = 5
CURVE_POINTS = 48
BLOCKS = "▁▂▃▄▅▆▇█"
STYLES = {"starting": "yellow", "serving": "green", "finished": "blue", "killed": "bold red"}


@dataclass
class StageRow:
    """What the view knows of one stage peer."""

    state: str = "starting"
    stage: int = -1
    step: int = 0
    waiting: int = 0
    under_way: int = 0
    held: int = 0
    loads: deque[tuple[int, float, float]] = field(
        default_factory=lambda: deque(maxlen=RATE_REPORTS)
    )
    """(sequences, busy seconds, seconds) of the last reports."""

    @property
    def rate(self) -> float:
        """Sequences per second, forward and back."""
        seconds = sum(load[2] for load in self.loads)
        return sum(load[0] for load in self.loads) / seconds if seconds else 0.0

    @property
    def busy(self) -> float:
        seconds = sum(load[2] for load in self.loads)
        return min(1.0, sum(load[1] for load in self.loads) / seconds) if seconds else 0.0


@dataclass
class TrainerRow:
    """What the view knows of one trainer; ``last``: its last report."""

    state: str = "starting"
    last: Record | None = None
    ends: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RATE_REPORTS))
    """(wall clock, trips) of the last reports."""

    @property
    def rate(self) -> float:
        """Trips per second."""
        span = self.ends[-1][0] - self.ends[0][0] if len(self.ends) > 1 else 0.0
        return sum(trips for _, trips in list(self.ends)[1:]) / span if span > 0 else 0.0


class PipelineView(Board):
    """Stage peers by stage, then trainers; see ``Board``."""

    def __init__(self, run_title: str) -> None:
        super().__init__(run_title)
        self.tokens = 0
        self._stages: dict[str, StageRow] = {}
        self._trainers: dict[str, TrainerRow] = {}
        self._losses: list[float] = []

    def _parts(self) -> list[RenderableType]:
        parts: list[RenderableType] = [self._head()]
        if self._losses:
            parts.append(self._curve())
        if self._stages:
            parts += [Text(""), self._stage_table()]
        if self._trainers:
            parts += [Text(""), self._trainer_table()]
        waits = self._waits()
        return [*parts, Text(waits, "bold yellow")] if waits else parts

    def _line(self) -> str:
        said = [self._stage_words(stage) for stage in self._served()]
        for row in self._trainers.values():
            if row.last is not None:
                last = row.last
                said.append(
                    f"{last['settled']} of {last['begun']} samples in steps, "
                    f"{row.rate:.1f} trips/s, loss {nats(self._loss())}"
                )
        return "  ".join([*said, self._waits()]).rstrip() or self._states()

    def _head(self) -> Text:
        alive = [row for row in self._stages.values() if row.state == "serving"]
        sent = sum(row.rate for row in self._trainers.values())
        said = [f"{len({row.stage for row in alive})} stages served by {len(alive)} peers"]
        if self._trainers:
            said.append(f"{len(self._trainers)} trainer{'s' * (len(self._trainers) > 1)}")
            said.append(f"loss {nats(self._loss())}   {sent:.1f} trips/s")
            said.append(f"{amount(self.tokens)} tokens")
        return Text("   ".join(said) if alive or sent else self._states(), "default")

    def _curve(self) -> Text:
        low, high = min(self._losses), max(self._losses)
        points = _means(self._losses, CURVE_POINTS)
        scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
        drawn = "".join(BLOCKS[round((point - low) * scale)] for point in points)
        return Text.assemble((drawn, "cyan"), f"  {nats(self._losses[0])} to {nats(self._loss())}")

    def _stage_table(self) -> Table:
        titles = ("step", "waiting", "under way", "held", "seq/s", "busy")
        table = _table(("stage", "peer", "state"), titles)
        shown = -1
        for name, row in sorted(self._stages.items(), key=lambda item: (item[1].stage, item[0])):
            new, shown = row.stage != shown, row.stage
            dead = row.state in ("killed", "starting")
            queue = ["-"] * 3 if dead else [str(n) for n in (row.waiting, row.under_way, row.held)]
            table.add_row(
                Text(str(row.stage) if new and row.stage >= 0 else "", "bold"),
                Text(printable(name, 16)),
                Text(row.state, STYLES[row.state]),
                Text(str(row.step)),
                *(Text(one) for one in queue),
                Text("-" if dead else f"{row.rate:.1f}"),
                Text("-" if dead else percent(row.busy)),
                style="dim" if row.state == "killed" else "",
            )
        return table

    def _trainer_table(self) -> Table:
        titles = ("begun", "in steps", "under way", "window", "trips/s", "a trip")
        table = _table(("trainer",), titles)
        table.add_column("sent again", no_wrap=True)
        for name, row in sorted(self._trainers.items()):
            last = row.last or dict.fromkeys(("begun", "settled", "open", "window", "seconds"), 0)
            causes = last.get("causes", {})
            why = ", ".join(f"{cause} {count}" for cause, count in sorted(causes.items()))
            counts = [str(last[key]) for key in ("begun", "settled", "open", "window")]
            took = f"{last['seconds']:.1f} s" if last["seconds"] else "-"
            cells = [printable(name, 16), *counts, f"{row.rate:.1f}", took, printable(why, 40)]
            table.add_row(*(Text(cell) for cell in cells))
        return table

    def _served(self) -> list[int]:
        return sorted({row.stage for row in self._stages.values() if row.state == "serving"})

    def _stage_words(self, stage: int) -> str:
        rows = [
            row for row in self._stages.values() if row.stage == stage and row.state == "serving"
        ]
        peers = f" ({len(rows)} peers)" if len(rows) > 1 else ""
        waiting, rate = sum(row.waiting for row in rows), sum(row.rate for row in rows)
        step = max(row.step for row in rows)
        return f"stage {stage}{peers}: step {step}, {waiting} waiting, {rate:.1f} seq/s"

    def _states(self) -> str:
        states = [row.state for row in self._stages.values()]
        states += [row.state for row in self._trainers.values()]
        return ", ".join(f"{states.count(s)} {s}" for s in STYLES if s in states) or "nobody yet"

    def _waits(self) -> str:
        """What a trainer cannot do without; empty if nothing."""
        unserved: set[int] = set()
        for row in self._trainers.values():
            if row.last is not None and row.state == "serving":
                unserved |= set(row.last["unserved"])
        if not unserved:
            return ""
        named = ", ".join(str(stage) for stage in sorted(unserved))
        if len(unserved) == 1:
            return f"waiting for stage {named}: nobody serves it"
        return f"waiting for stages {named}: nobody serves them"

    def _loss(self) -> float:
        return _means(self._losses[-RATE_REPORTS:], 1)[0] if self._losses else math.nan

    # ---- events -------------------------------------------------------------------------------

    def _on_started(self, event: Record) -> None:
        self._names[event["peer_id"]] = event["peer"]
        if event["role"] == "stage":
            self._stages[event["peer"]] = StageRow()
            self._note_slowdown(event)
        elif event["role"] == "trainer":
            self._trainers[event["peer"]] = TrainerRow()

    def _on_taken(self, event: Record) -> None:
        row = self._stages.setdefault(event["peer"], StageRow())
        row.state, row.stage, row.step = "serving", int(event["stage"]), int(event["step"])
        row.loads.clear()
        self._began = self._began or float(event["time"])
        if event["left"] >= 0:
            how = f"{size(event['bytes'])} in {event['seconds']:.1f} s"
            said = f"{event['peer']} moved from stage {event['left']} to stage {row.stage} ({how})"
            self._note(event, said, "cyan")

    def _on_load(self, event: Record) -> None:
        row = self._stages.get(event["peer"])
        if row is not None:
            row.step = int(event["step"])
            row.waiting, row.under_way = int(event["waiting"]), int(event["under_way"])
            row.held = int(event["held"])
            load = int(event["sequences"]), float(event["busy_s"]), float(event["seconds"])
            row.loads.append(load)

    def _on_step(self, event: Record) -> None:
        row = self._stages.get(event["peer"])
        if row is not None:
            row.step = int(event["step"])
        self.progress = min(max(self.progress, float(event["progress"])), 1.0)

    def _on_trips(self, event: Record) -> None:
        row = self._trainers.setdefault(event["peer"], TrainerRow())
        row.state, row.last = "serving", event
        row.ends.append((float(event["time"]), int(event["trips"])))
        if event["begun"]:
            self._began = self._began or float(event["time"])
        if event["trips"] and math.isfinite(event["loss"]):
            self._losses.append(float(event["loss"]))
        self.tokens += int(event["tokens"])
        self.progress = min(max(self.progress, float(event["progress"])), 1.0)

    def _on_lost(self, event: Record) -> None:
        said = f"{event['peer']} dropped {event['samples']} samples of stage {event['stage']}"
        self._note(event, f"{said}: they come again", "yellow")

    def _on_fault(self, event: Record) -> None:
        subject = self._name(event["subject"])
        row = self._stages.get(subject) or self._trainers.get(subject)
        if event["kind"] == "kill" and row is not None:
            row.state = "killed"
        self._note_fault(event)

    def _on_finished(self, event: Record) -> None:
        row = self._stages.get(event["peer"]) or self._trainers.get(event["peer"])
        if row is not None:
            row.state = "finished"
        self._over(event)


PipelineView.hearers = {
    "peer_started": PipelineView._on_started,
    "stage_taken": PipelineView._on_taken,
    "stage_load": PipelineView._on_load,
    "stage_step": PipelineView._on_step,
    "trips": PipelineView._on_trips,
    "samples_lost": PipelineView._on_lost,
    "state_taken": PipelineView._on_state,
    "fault": PipelineView._on_fault,
    "daemon_restarted": PipelineView._on_daemon,
    "clock_off": PipelineView._on_clock,
    "reach": PipelineView._on_reach,
    "path": PipelineView._on_path,
    "evaluated": PipelineView._on_evaluated,
    "peer_finished": PipelineView._on_finished,
}


def _table(words: tuple[str, ...], figures: tuple[str, ...]) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold dim")
    for title in words:
        table.add_column(title, no_wrap=True)
    for title in figures:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _means(values: list[float], count: int) -> list[float]:
    """At most ``count`` means of equal stretches of ``values``."""
    count = min(count, len(values))
    bounds = [len(values) * i // count for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
