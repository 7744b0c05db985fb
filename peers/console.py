"""One process's own progress in the terminal: a live table, or plain lines where none is drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from peers.board import Board, clock_line, reach_line
from peers.live import LiveView
from peers.pipeline.view import PipelineView
from peers.story import Record
from peers.units import clock, printable, size
from swarmnet.events import (
    FINISHED,
    ClockOff,
    EventLog,
    MemoryReserved,
    PeerFinished,
    PeerStarted,
    ReachSeen,
    StageStepped,
    StageTaken,
    StateAwaited,
    StateTaken,
)

PLAIN_S = 5.0
FRAMES_PER_S = 2.0
JOINING = "joining the run"
GOES_ON = {e.name for e in (PeerStarted, StateTaken, StageTaken, StageStepped, PeerFinished)}
"""A state is awaited no longer after these."""


class OwnView:
    """A process's view of itself: what is drawn depends on the role that it says it has."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._board: Board | None = None
        self._awaiting: dict[str, str] = {}
        """Of each peer of the process that takes a state now: how far it is."""

    def update(self, event: Record) -> None:
        if event["event"] == StateAwaited.name:
            self._awaiting[event["peer"]] = awaiting(event)
        elif event["event"] in GOES_ON:
            self._awaiting.pop(event["peer"], None)
        if event["event"] == "peer_started":
            staged = event["role"] in ("stage", "trainer")
            self._board = (PipelineView if staged else LiveView)(f"{self._title}: {event['role']}")
        if self._board is not None:
            self._board.update(event)

    def render(self) -> RenderableType:
        awaiting = "\n".join(self._awaiting.values())
        if self._board is None:
            return Text(awaiting or JOINING)
        shown = self._board.render()
        return Group(shown, Text(awaiting)) if awaiting else shown

    def plain_line(self) -> str:
        if self._awaiting or self._board is None:
            return "; ".join(self._awaiting.values()) or JOINING
        return self._board.plain_line()


@contextmanager
def follow(log: EventLog, title: str) -> Iterator[OwnView]:
    """Show every event of ``log`` until the block ends."""
    view, console = OwnView(title), Console(stderr=True)

    def announce(line: dict[str, Any]) -> None:
        if (said := notable(line)) is not None:
            console.print(said, markup=False, highlight=False, soft_wrap=True)

    log.listen(view.update)
    log.listen(announce)
    with shown(view, console):
        yield view


def notable(line: Mapping[str, Any]) -> str | None:
    """What the owner of a process should read once, in one line; None for all other events."""
    if line["event"] == MemoryReserved.name:
        return memory_line(line)
    if line["event"] == StateTaken.name and line["source"] != "seed":
        return state_line(line)
    if line["event"] == PeerFinished.name and line["reason"] == FINISHED:
        return "the run is over: whoever asks gets its result from here; Ctrl-C ends that"
    if line["event"] == ClockOff.name:
        return f"warning: {clock_line(line)}"
    if line["event"] == ReachSeen.name and line["reach"] == "private":
        return reach_line(line)
    return None


def awaiting(line: Mapping[str, Any]) -> str:
    """How far a peer has come with a state that it takes, or why nobody gives it."""
    chunks, donors = int(line["chunks"]), int(line["donors"])
    if line["reason"] or not donors:
        how = printable(str(line["reason"]), 100) or "no donor yet"
    else:
        how = f"{chunks - int(line['left'])} of {chunks} chunks from {_donors(donors)}"
    return f"taking its state: {how} ({clock(float(line['seconds']))})"


def _donors(count: int) -> str:
    return "1 donor" if count == 1 else f"{count} donors"


def state_line(line: Mapping[str, Any]) -> str:
    """Where a peer's weights come from."""
    if line["source"] == "checkpoint":
        return f"goes on from its own checkpoint, at step {line['step']}"
    followed = f", then {line['followed']} steps one by one" if line["followed"] else ""
    given = f"{_donors(int(line['donors']))}, {size(line['bytes'])}{followed}"
    return f"took its state from {given}: at step {line['step']}"


def memory_line(line: Mapping[str, Any]) -> str:
    """The memory budget of a worker in one line; open questions come on top."""
    parts = {field.name: int(line[field.name]) for field in fields(MemoryReserved)}
    late = parts.pop("open_questions")
    named = ", ".join(f"{name} {size(count)}" for name, count in parts.items())
    total = size(sum(parts.values()))
    return f"memory reserved: {total} ({named}); at most {size(late)} more for open questions"


@contextmanager
def shown(view: Board | OwnView, console: Console | None = None) -> Iterator[None]:
    """Draw ``view`` on standard error until the block ends."""
    console = console or Console(stderr=True)
    stop = threading.Event()

    def draw() -> None:
        if not console.is_terminal:
            while not stop.wait(PLAIN_S):
                console.print(view.plain_line(), markup=False, highlight=False, soft_wrap=True)
            return
        with Live(console=console, refresh_per_second=FRAMES_PER_S, transient=False) as live:
            while not stop.wait(1 / FRAMES_PER_S):
                live.update(view.render())
            live.update(view.render())

    thread = threading.Thread(target=draw, name="swarmnet-console", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
