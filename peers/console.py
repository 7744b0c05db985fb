"""One process's own progress in the terminal: a live table, or plain lines where none is drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from peers.live import LiveView
from swarmnet.events import EventLog

PLAIN_S = 5.0
FRAMES_PER_S = 2.0


@contextmanager
def follow(log: EventLog, title: str) -> Iterator[LiveView]:
    """Show every event of ``log`` until the block ends."""
    view = LiveView(title)
    log.listen(view.update)
    with shown(view):
        yield view


@contextmanager
def shown(view: LiveView) -> Iterator[None]:
    """Draw ``view`` on standard error until the block ends."""
    console = Console(stderr=True)
    stop = threading.Event()

    def draw() -> None:
        if not console.is_terminal:
            while not stop.wait(PLAIN_S):
                console.print(view.plain_line(), markup=False, highlight=False)
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
