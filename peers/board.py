"""What every live view of a run has: a frame, a bar, notes, and a lock around what it heard.

A view hears events (of all processes, roughly in time order) and draws on demand; who reads the
event files and owns the terminal is the command's business. Texts of peers lose their control
characters and are never read as markup.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from peers.mishaps import happened
from peers.story import Record
from peers.units import clock, percent, printable, size
from swarmnet.events import FINISHED

NOTES = 5


class Board(ABC):
    """Feed it with ``update``, show it with ``render`` or ``plain_line``. Safe from any thread."""

    hearers: Mapping[str, Callable[[Any, Record], None]]
    """What a view does about an event, by the event's name."""

    def __init__(self, run_title: str) -> None:
        self.title = printable(run_title, 60)
        self.progress = 0.0
        self._names: dict[str, str] = {}
        self._notes: deque[tuple[float, Text]] = deque(maxlen=NOTES)
        self._relayed: dict[tuple[str, str], str] = {}
        self._began: float | None = None
        self._now = 0.0
        self._lock = threading.Lock()

    def update(self, event: Record) -> None:
        """Take one event in."""
        with self._lock:
            self._now = max(self._now, float(event["time"]))
            hear = self.hearers.get(event["event"])
            if hear is not None:
                hear(self, event)

    def render(self) -> RenderableType:
        """The whole view, to be drawn again after every update."""
        with self._lock:
            notes = Text("\n").join(note for _, note in self._notes)
            parts = [*self._parts(), Text(""), self._bar()]
            return Panel(
                Group(*parts, *([Text(""), notes] if self._notes else [])),
                title=Text(f" {self.title} ", "bold"),
                border_style="bright_black",
                box=box.ROUNDED,
                padding=(0, 1),
            )

    def _over(self, event: Record) -> None:
        """A peer has ended; if it saw the run's end, that is how far the run has come."""
        if event["reason"] == FINISHED:
            self.progress = 1.0

    def plain_line(self) -> str:
        """The run in one line, for a log or a pipe."""
        with self._lock:
            return f"{clock(self._elapsed())}  {self.progress:4.0%}  {self._line()}"

    def notes(self) -> list[str]:
        """The last notable lines, oldest first."""
        with self._lock:
            return [note.plain for _, note in self._notes]

    @abstractmethod
    def _parts(self) -> list[RenderableType]:
        """What stands above the bar."""

    @abstractmethod
    def _line(self) -> str:
        """What ``plain_line`` says behind time and progress."""

    def _bar(self) -> Table:
        grid = Table.grid(expand=True, padding=(0, 1))
        for ratio in (None, 1, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        elapsed = clock(self._elapsed())
        bar = ProgressBar(1.0, self.progress, complete_style="green", finished_style="green")
        grid.add_row(Text(f"{self.progress:4.0%}"), bar, Text(elapsed))
        return grid

    def _elapsed(self) -> float:
        return self._now - self._began if self._began is not None else 0.0

    def _name(self, peer: str) -> str:
        return self._names.get(peer, peer)

    def _note(self, event: Record, text: str, style: str = "") -> None:
        at = clock(float(event["time"]) - (self._began or float(event["time"])))
        line = Text.assemble((f"{at}  ", "dim"), (printable(text, 100), style))
        self._notes.append((float(event["time"]), line))

    # ---- events that mean the same in every run -------------------------------------------------

    def _on_state(self, event: Record) -> None:
        if event["source"] == "donor":
            donor = self._name(event["donor"]) or "a peer"
            how = f"{size(event['bytes'])} in {event['seconds']:.1f} s"
            self._note(event, f"{event['peer']} took its state from {donor} ({how})", "green")
        elif event["source"] == "checkpoint":
            self._note(event, f"{event['peer']} goes on from its step {event['step']}", "green")

    def _note_fault(self, event: Record) -> None:
        said = f"{self._name(event['subject'])} {happened(event)} at {percent(self.progress)}"
        killed = event["kind"] == "kill"
        style = "green" if event["over"] or event["kind"] == "join" else "yellow"
        self._note(event, f"{said} of the run", "red" if killed and not event["over"] else style)

    def _note_slowdown(self, event: Record) -> None:
        if float(event["slowdown"]) > 1:
            said = f"{event['peer']} is slowed {event['slowdown']:g} times on purpose"
            self._note(event, said, "yellow")

    def _on_checkpoint(self, event: Record) -> None:
        if event["error"]:
            self._note(event, f"{event['peer']} has no new checkpoint: {event['error']}", "red")
        else:
            self._note(event, f"{event['peer']} wrote a checkpoint at step {event['step']}")

    def _on_passed_over(self, event: Record) -> None:
        said = f"{event['peer']} passed over the checkpoint {event['folder']}: {event['reason']}"
        self._note(event, said, "yellow")

    def _on_daemon(self, event: Record) -> None:
        took = f"{event['seconds']:.1f} s"
        self._note(event, f"{event['peer']} restarted its network daemon ({took})", "yellow")

    def _on_clock(self, event: Record) -> None:
        self._note(event, clock_line(event), "red")

    def _on_reach(self, event: Record) -> None:
        if event["reach"] == "private":
            self._note(event, reach_line(event), "yellow")

    def _on_path(self, event: Record) -> None:
        """Straight ways are the rule and not worth a line, unless there was a relay before."""
        peer, way = self._name(event["peer_id"]), event["path"]
        was = self._relayed.get((event["peer"], peer))
        if way == "relayed":
            self._relayed[event["peer"], peer] = event["relay"]
            by = self._name(event["relay"])
            self._note(event, f"{event['peer']} reaches {peer} through the relay {by}", "yellow")
        elif was is not None:
            del self._relayed[event["peer"], peer]
            said = "reaches it directly now" if way == "direct" else "lost it"
            self._note(event, f"{event['peer']} had {peer} through a relay, {said}", "green")

    def _on_evaluated(self, event: Record) -> None:
        if event["subject"] == "merged":
            self._note(event, f"held-out loss of the merged model: {nats(event['loss'])}", "cyan")


def clock_line(event: Mapping[str, Any]) -> str:
    minutes = abs(float(event["ahead_s"])) / 60
    side = "ahead of" if event["ahead_s"] > 0 else "behind"
    others = f"those of {event['peers']} other peers" if event["peers"] > 1 else "another peer's"
    return f"this computer's clock is about {minutes:.0f} minutes {side} {others}: set it"


def reach_line(event: Mapping[str, Any]) -> str:
    count = len(event["relays"])
    ways = f"{count or 'no'} relay{'' if count == 1 else 's'}"
    return f"others cannot connect to this computer: it is reached through {ways}"


def nats(loss: float) -> str:
    return f"{loss:.3f}" if math.isfinite(loss) else "-"
