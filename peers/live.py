"""The live view of a swarm of workers: what its events say right now, as a table or as one line."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from peers.board import Board, nats
from peers.story import Record
from peers.units import amount, percent, printable, size

SMOOTHING = 0.9
RATE_STEPS = 16

STYLES = {
    "starting": "yellow",
    "training": "green",
    "consensus": "cyan",
    "finished": "blue",
    "frozen": "magenta",
    "killed": "bold red",
}
ENDINGS = {"kill": "killed", "freeze": "frozen"}
"""What somebody hurt on purpose is until that is over."""


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


class LiveView(Board):
    """Workers in rows: state, step, loss, whom they met, what they sent."""

    def __init__(self, run_title: str) -> None:
        super().__init__(run_title)
        self.tokens = 0
        self.lr = math.nan
        self.epochs = 0.0
        """Of the text, read by all together."""
        self._rows: dict[str, Row] = {}
        self._roles: dict[str, str] = {}
        self._agreeing = False

    def _parts(self) -> list[RenderableType]:
        return [self._head(), Text(""), self._table()]

    def _line(self) -> str:
        rows = list(self._rows.values())
        steps = [row.step for row in rows if row.state == "training"]
        reach = f"steps {min(steps)}-{max(steps)}" if steps else "no steps now"
        count = [sum(r.count(*names) for r in rows) for names in FATES]
        return (
            f"{self._states()}  {reach}  "
            f"loss {nats(self._mean_loss())}  {self._rate():.1f} steps/s  "
            f"meetings {(count[0] + 1) // 2} ok {count[1]} solo {count[2]} failed  "
            f"sent {size(sum(row.sent for row in rows))}"
        )

    def _head(self) -> Text:
        rates = f"{self._rate():.1f} steps/s   {amount(self.tokens)} tokens"
        loss = f"loss {nats(self._mean_loss())}"
        lr = f"lr {self.lr:.1e}".replace("e-0", "e-") if math.isfinite(self.lr) else "lr -"
        read = f"   {self.epochs:.2f} epochs" if self.epochs else ""
        return Text(f"{self._states()}   {loss}   {lr}   {rates}{read}", "default")

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
                Text(nats(row.loss)),
                Text(f"{row.rate:.1f}" if row.rate else "-"),
                Text(percent(row.stall)),
                Text(printable(row.partner, 16)),
                Text("/".join(str(row.count(*names)) for names in FATES)),
                Text(size(row.sent)),
                style="dim" if row.state == "killed" else "",
            )
        return table

    def _states(self) -> str:
        states = [row.state for row in self._rows.values()]
        return ", ".join(f"{states.count(s)} {s}" for s in STYLES if s in states) or "nobody yet"

    def _rate(self) -> float:
        return sum(row.rate for row in self._rows.values())

    def _mean_loss(self) -> float:
        losses = [r.loss for r in self._rows.values() if r.state != "killed"]
        known = [loss for loss in losses if math.isfinite(loss)]
        return sum(known) / len(known) if known else math.nan

    def _row(self, event: Record) -> Row | None:
        """The writer's row; processes with another role have none."""
        name = str(event["peer"])
        if self._roles.get(name, "worker") != "worker":
            return None
        return self._rows.setdefault(name, Row())

    def _on_started(self, event: Record) -> None:
        self._names[event["peer_id"]] = event["peer"]
        self._roles[event["peer"]] = event["role"]
        row = self._row(event)
        if row is None:
            return
        row.state = "starting"
        self._note_slowdown(event)

    def _on_step(self, event: Record) -> None:
        row = self._row(event)
        if row is None:
            return
        self._began = self._began or float(event["time"]) - float(event["seconds"])
        row.state = "training" if row.state not in ENDINGS.values() else row.state
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
        row = self._rows.get(subject)
        if row is not None and event["kind"] in ENDINGS and not event["over"]:
            row.state = ENDINGS[event["kind"]]
        elif row is not None and event["kind"] == "freeze":
            row.state = "training"
        self._note_fault(event)

    def _on_served(self, event: Record) -> None:
        row = self._row(event)
        if row is not None:
            row.sent += int(event["bytes"])

    def _on_read(self, event: Record) -> None:
        self.epochs += len(event["blocks"]) / max(int(event["of"]), 1)

    def _on_finished(self, event: Record) -> None:
        row = self._row(event)
        if row is not None:
            row.state = "finished"
        self._over(event)


FATES = (("ok", "late"), ("solo",), ("failed",))

LiveView.hearers = {
    "peer_started": LiveView._on_started,
    "state_taken": LiveView._on_state,
    "step": LiveView._on_step,
    "exchange": LiveView._on_exchange,
    "blocks_read": LiveView._on_read,
    "fault": LiveView._on_fault,
    "checkpoint": LiveView._on_checkpoint,
    "checkpoint_passed_over": LiveView._on_passed_over,
    "daemon_restarted": LiveView._on_daemon,
    "clock_off": LiveView._on_clock,
    "reach": LiveView._on_reach,
    "path": LiveView._on_path,
    "state_served": LiveView._on_served,
    "evaluated": LiveView._on_evaluated,
    "peer_finished": LiveView._on_finished,
}
