"""Real processes for tests: a bootstrap and peers from one preloaded server, and their events."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.collect import Tail
from peers.keeper import FOLDER
from peers.nursery import INVITE, Child, Nursery
from swarmnet.config import RunFile
from swarmnet.train import checkpoint

RUN = Path(__file__).with_name("tiny.toml")
DEADLINE_S = 90.0
SLOW = 6.0
"""A worker's steps take so many times as long: who trains leaves the cores to who starts."""


class Herd:
    """One run in ``folder``. ``events`` holds all lines of all processes so far."""

    def __init__(
        self, folder: Path, *overrides: str, host: str = "127.0.0.1", run: Path = RUN
    ) -> None:
        self.folder = folder
        self.run = RunFile.load(run, overrides)
        self.nursery = Nursery(folder / "peers")
        self.events: list[dict[str, Any]] = []
        self._tail = Tail(folder)
        self.settings = {
            "threads": 1,
            "host": host,
            "serve_s": 60.0,
            "device": "cpu",
            "checkpoint_s": 2.0,
        }

    def __enter__(self) -> Herd:
        self.bootstrap = self.nursery.start(
            "bootstrap", "bootstrap_child", self.run.raw, self.settings
        )
        path = self.bootstrap.out / INVITE
        self.wait(path.exists, "an invite")
        self.invite = path.read_text().strip()
        return self

    def __exit__(self, *exception: object) -> None:
        self.nursery.close()

    def worker(self, name: str, **settings: Any) -> Child:
        given = self.settings | {"slowdown": SLOW} | settings
        return self.nursery.start(name, "worker_child", self.invite, given)

    def stage(self, name: str, stage: int, **settings: Any) -> Child:
        given = self.settings | settings
        return self.nursery.start(name, "stage_child", self.invite, given, stage)

    def trainer(self, name: str, **settings: Any) -> Child:
        return self.nursery.start(name, "trainer_child", self.invite, self.settings | settings)

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Poll until ``condition`` holds, however slow the machine is, up to the deadline."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                words = {c.name: c.last_words() for c in self.nursery.children}
                raise AssertionError(f"no {what} within {DEADLINE_S:.0f} s; {words}")
            time.sleep(0.05)
            self.poll()

    def poll(self) -> None:
        self.events += self._tail.poll()

    def of(self, peer: str, event: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["peer"] == peer and e["event"] == event]

    def steps(self, peer: str) -> int:
        """Inner steps that ``peer`` has logged."""
        return len(self.of(peer, "step"))

    def met(self, peer: str) -> int:
        """Meetings of ``peer`` that were applied."""
        return sum(e["outcome"] == "ok" for e in self.of(peer, "exchange"))

    def wait_met(self, *peers: str, times: int = 3) -> None:
        self.wait(lambda: all(self.met(p) >= times for p in peers), f"{times} meetings of {peers}")

    def wait_finished(self, *peers: str) -> None:
        self.wait(lambda: all(self.of(p, "peer_finished") for p in peers), f"end of {peers}")


def kept_back(out: Path) -> float:
    """Root mean square of what a NoLoCo peer's last checkpoint holds that nobody else has."""
    kept = checkpoint.read(out / FOLDER)
    assert kept is not None
    return float((kept[0]["theta"] - kept[0]["outer.phi"]).square().mean().sqrt())
