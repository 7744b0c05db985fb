"""The processes of a local run: forked, followed through their event files, ended together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peers.collect import FAULTS, Tail
from peers.nursery import INVITE, RESULT, Child, Nursery
from peers.stop import Stop
from peers.story import Record
from swarmnet.errors import StopRequested, SwarmnetError
from swarmnet.events import EventLog, FaultInjected

POLL_S = 0.2
START_S = 120.0
FINISH_S = 300.0
FINISH_THREADS = 2


class DemoFailed(SwarmnetError):
    """A process of the demo ended in a way that was not planned; the message says where to look."""


class Brood:
    """All children of one local run in ``out``; ``settings`` is the peer file of each.

    ``hear`` is told every event of every process, in about the order of time.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any], stop: Stop, hear: Callable[[Record], None]
    ) -> None:
        self.settings = dict(settings)
        self._out = out
        self._stop = stop
        self._hear = hear
        self._nursery = Nursery(out / "peers")
        self._tail = Tail(out)
        self._log = EventLog(out / FAULTS, "demo")

    def bootstrap(self, run_file: bytes) -> str:
        """Open the run; its invite."""
        child = self.start("bootstrap", "bootstrap_child", run_file, self.settings)
        path = child.out / INVITE
        deadline = time.monotonic() + START_S
        while not path.exists():
            self.watch()
            if not child.running or time.monotonic() > deadline:
                raise DemoFailed(f"the bootstrap did not start: {_last(child)}")
        return path.read_text().strip()

    def start(self, name: str, work: str, *arguments: Any) -> Child:
        """See ``Nursery.start``."""
        return self._nursery.start(name, work, *arguments)

    def kill(self, child: Child) -> None:
        """kill -9, and a line in the log that it was on purpose."""
        child.kill()
        self.hurt("kill", child.name)

    def hurt(self, kind: str, subject: str) -> None:
        self.note(FaultInjected(kind, subject))

    def note(self, fault: FaultInjected) -> None:
        """A line of ``faults.jsonl``."""
        self._log.emit(fault)

    def watch(self) -> None:
        """Sleep a little, then take in what the processes wrote. Raises StopRequested."""
        if self._stop.wait(POLL_S):
            raise StopRequested(f"stopped by {self._stop.reason}")
        for event in self._tail.poll():
            self._hear(event)

    def check(self, child: Child) -> None:
        """Raises DemoFailed when it ended without being told to."""
        if not child.running:
            raise DemoFailed(f"{child.name} ended: {_last(child)}")

    def result(self, child: Child, seconds: float, what: str) -> dict[str, Any]:
        """What a child that computes something left behind. Raises DemoFailed."""
        deadline = time.monotonic() + seconds
        while child.running and time.monotonic() < deadline:
            self.watch()
        self.watch()
        if child.exit_code != 0:
            raise DemoFailed(f"{what} failed: {_last(child)}")
        result: dict[str, Any] = json.loads((child.out / RESULT).read_text())
        return result

    def finish(self, work: str, invite: str) -> dict[str, Any]:
        """The last act: a child makes ``model/`` out of what the peers serve."""
        settings = self.settings | {"threads": FINISH_THREADS}
        child = self.start("finish", work, invite, str(self._out / "model"), settings)
        return self.result(child, FINISH_S, "the merge")

    def close(self) -> None:
        """Ask all to leave and see that they do. Safe to call twice."""
        self._nursery.close()
        self._log.close()


def _last(child: Child) -> str:
    return f"{child.last_words()} ({child.out})"
