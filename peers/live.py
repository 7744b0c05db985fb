"""The live view of a run: what its events say right now, as a table or as one line.

It hears events (of all processes, roughly in time order) and draws on demand; who reads the event
files and owns the terminal is the command's business. Texts of peers lose their control
characters and are never read as markup.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from peers.story import Record
from peers.units import amount, clock, percent, printable, size

SMOOTHING = 0.9
RATE_STEPS = 16
NOTES = 5

STYLES = {
    "starting": "yellow",
    "training": "green",
    "consensus": "cyan",
    "finished": "blue",
    "killed": "bold red",
}


@dataclass
class Row:
    """What the view knows of one worker."""

    state: str = "starting"
    step: int = 0
    loss: float = math.nan
    partner: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    stall_s: float = 0.0
    train_s: float = 0.0
    stamps: deque[float] = field(default_factory=lambda: deque(maxlen=RATE_STEPS))

    @property
    def rate(self) -> float:
        """Steps per second over the last few steps; 0 when it does not step."""
        if self.state != "training" or len(self.stamps) < 2:
            return 0.0
        span = self.stamps[-1] - self.stamps[0]
        return (len(self.stamps) - 1) / span if span > 0 else 0.0

    @property
    def stall(self) -> float:
        """Share of its training time in which it waited for the network."""
        return self.stall_s / self.train_s if self.train_s else 0.0

    def count(self, *outcomes: str) -> int:
        return sum(self.counts.get(outcome, 0) for outcome in outcomes)


class LiveView:
    """Feed it with ``update``, show it with ``render`` or ``plain_line``. Safe from any thread."""

    def __init__(self, run_title: str) -> None:
        self.title = printable(run_title, 60)
        self.progress = 0.0
        self.tokens = 0
        self.lr = math.nan
        self._rows: dict[str, Row] = {}
        self._names: dict[str, str] = {}
        self._roles: dict[str, str] = {}
        self._notes: deque[tuple[float, Text]] = deque(maxlen=NOTES)
        self._began: float | None = None
        self._now = 0.0
        self._agreeing = False
        self._lock = threading.Lock()

    def update(self, event: Record) -> None:
        """Take one event in."""
        with self._lock:
            self._now = max(self._now, float(event["time"]))
            hear = HEARERS.get(event["event"])
            if hear is not None:
                hear(self, event)

    def render(self) -> RenderableType:
        """The whole view, to be drawn again after every update."""
        with self._lock:
            notes = Text("\n").join(note for _, note in self._notes)
            parts: list[RenderableType] = [
                self._head(),
                Text(""),
                self._table(),
                Text(""),
                self._bar(),
            ]
            return Panel(
                Group(*parts, *([Text(""), notes] if self._notes else [])),
                title=Text(f" {self.title} ", "bold"),
                border_style="bright_black",
                box=box.ROUNDED,
                padding=(0, 1),
            )

    def plain_line(self) -> str:
        """The swarm in one line, for a log or a pipe."""
        with self._lock:
            rows = list(self._rows.values())
            steps = [row.step for row in rows if row.state == "training"]
            reach = f"steps {min(steps)}-{max(steps)}" if steps else "no steps now"
            count = [sum(r.count(*names) for r in rows) for names in FATES]
            return (
                f"{clock(self._elapsed())}  {self.progress:4.0%}  {self._states()}  {reach}  "
                f"loss {_loss(self._mean_loss())}  {self._rate():.1f} steps/s  "
                f"meetings {(count[0] + 1) // 2} ok {count[1]} solo {count[2]} failed  "
                f"sent {size(sum(row.sent for row in rows))}"
            )

    def notes(self) -> list[str]:
        """The last notable lines, oldest first."""
        with self._lock:
            return [note.plain for _, note in self._notes]

    def _head(self) -> Text:
        rates = f"{self._rate():.1f} steps/s   {amount(self.tokens)} tokens"
        loss = f"loss {_loss(self._mean_loss())}"
        lr = f"lr {self.lr:.1e}".replace("e-0", "e-") if math.isfinite(self.lr) else "lr -"
        return Text(f"{self._states()}   {loss}   {lr}   {rates}", "default")

    def _table(self) -> Table:
        table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold dim")
        for title in ("peer", "state"):
            table.add_column(title, no_wrap=True)
        for title in ("step", "loss", "steps/s", "stall"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("partner", no_wrap=True)
        for title in ("ok/solo/fail", "sent"):
            table.add_column(title, justify="right", no_wrap=True)
        for name, row in sorted(self._rows.items(), key=lambda item: (len(item[0]), item[0])):
            table.add_row(
                Text(printable(name, 16)),
                Text(row.state, STYLES[row.state]),
                Text(str(row.step)),
                Text(_loss(row.loss)),
                Text(f"{row.rate:.1f}" if row.rate else "-"),
                Text(percent(row.stall)),
                Text(printable(row.partner, 16)),
                Text("/".join(str(row.count(*names)) for names in FATES)),
                Text(size(row.sent)),
                style="dim" if row.state == "killed" else "",
            )
        return table

    def _bar(self) -> Table:
        grid = Table.grid(expand=True, padding=(0, 1))
        for ratio in (None, 1, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        elapsed = clock(self._elapsed())
        bar = ProgressBar(1.0, self.progress, complete_style="green", finished_style="green")
        grid.add_row(Text(f"{self.progress:4.0%}"), bar, Text(elapsed))
        return grid

    def _states(self) -> str:
        states = [row.state for row in self._rows.values()]
        return ", ".join(f"{states.count(s)} {s}" for s in STYLES if s in states) or "nobody yet"

    def _rate(self) -> float:
        return sum(row.rate for row in self._rows.values())

    def _mean_loss(self) -> float:
        losses = [r.loss for r in self._rows.values() if r.state != "killed"]
        known = [loss for loss in losses if math.isfinite(loss)]
        return sum(known) / len(known) if known else math.nan

    def _elapsed(self) -> float:
        return self._now - self._began if self._began is not None else 0.0

    def _name(self, peer: str) -> str:
        return self._names.get(peer, peer)

    def _row(self, event: Record) -> Row | None:
        """The writer's row; processes with another role have none."""
        name = str(event["peer"])
        if self._roles.get(name, "worker") != "worker":
            return None
        return self._rows.setdefault(name, Row())

    def _note(self, event: Record, text: str, style: str = "") -> None:
        at = clock(float(event["time"]) - (self._began or float(event["time"])))
        line = Text.assemble((f"{at}  ", "dim"), (printable(text, 100), style))
        self._notes.append((float(event["time"]), line))

    def _on_started(self, event: Record) -> None:
        self._names[event["peer_id"]] = event["peer"]
        self._roles[event["peer"]] = event["role"]
        row = self._row(event)
        if row is None:
            return
        row.state = "starting"
        if float(event["slowdown"]) > 1:
            said = f"{event['peer']} is slowed {event['slowdown']:g} times on purpose"
            self._note(event, said, "yellow")

    def _on_state(self, event: Record) -> None:
        if event["source"] == "donor":
            donor = self._name(event["donor"]) or "a peer"
            how = f"{size(event['bytes'])} in {event['seconds']:.1f} s"
            self._note(event, f"{event['peer']} took its state from {donor} ({how})", "green")
        elif event["source"] == "checkpoint":
            self._note(event, f"{event['peer']} goes on from its step {event['step']}", "green")

    def _on_step(self, event: Record) -> None:
        row = self._row(event)
        if row is None:
            return
        self._began = self._began or float(event["time"]) - float(event["seconds"])
        row.state = "training" if row.state != "killed" else row.state
        row.step, self.lr = int(event["step"]), float(event["lr"])
        row.stall_s += float(event["stall_s"])
        row.train_s += float(event["seconds"])
        loss = float(event["loss"])
        first = not math.isfinite(row.loss)
        row.loss = loss if first else SMOOTHING * row.loss + (1 - SMOOTHING) * loss
        row.stamps.append(float(event["time"]))
        self.tokens += int(event["tokens"])
        self.progress = min(max(self.progress, float(event["progress"])), 1.0)

    def _on_exchange(self, event: Record) -> None:
        row = self._row(event)
        if row is None:
            return
        row.counts[event["outcome"]] = row.count(event["outcome"]) + 1
        row.sent += int(event["bytes_sent"])
        if event["partner"]:
            row.partner = self._name(event["partner"])
        if event["phase"] != "train" and row.state != "killed":
            row.state = "consensus"
            if not self._agreeing:
                self._agreeing = True
                self._note(event, "consensus: learning stops, replicas average", "cyan")

    def _on_fault(self, event: Record) -> None:
        subject = self._name(event["subject"])
        killed = event["kind"] == "kill"
        if killed and subject in self._rows:
            self._rows[subject].state = "killed"
        words = "killed" if killed else "joins" if event["kind"] == "join" else event["kind"]
        at = percent(self.progress)
        self._note(event, f"{subject} {words} at {at} of the run", "red" if killed else "green")

    def _on_checkpoint(self, event: Record) -> None:
        if event["error"]:
            self._note(event, f"{event['peer']} has no new checkpoint: {event['error']}", "red")
        else:
            self._note(event, f"{event['peer']} wrote a checkpoint at step {event['step']}")

    def _on_daemon(self, event: Record) -> None:
        took = f"{event['seconds']:.1f} s"
        self._note(event, f"{event['peer']} restarted its network daemon ({took})", "yellow")

    def _on_served(self, event: Record) -> None:
        row = self._row(event)
        if row is not None:
            row.sent += int(event["bytes"])

    def _on_evaluated(self, event: Record) -> None:
        if event["subject"] == "merged":
            self._note(event, f"held-out loss of the merged model: {_loss(event['loss'])}", "cyan")

    def _on_finished(self, event: Record) -> None:
        row = self._row(event)
        if row is not None:
            row.state = "finished"


FATES = (("ok", "late"), ("solo",), ("failed",))

HEARERS: dict[str, Callable[[LiveView, Record], None]] = {
    "peer_started": LiveView._on_started,
    "state_taken": LiveView._on_state,
    "step": LiveView._on_step,
    "exchange": LiveView._on_exchange,
    "fault": LiveView._on_fault,
    "checkpoint": LiveView._on_checkpoint,
    "daemon_restarted": LiveView._on_daemon,
    "state_served": LiveView._on_served,
    "evaluated": LiveView._on_evaluated,
    "peer_finished": LiveView._on_finished,
}


def _loss(loss: float) -> str:
    return f"{loss:.3f}" if math.isfinite(loss) else "-"
