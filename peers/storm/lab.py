"""A storm over a local swarm: plan, ward and hands together, and a line in the log for each act."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from peers.nursery import Child
from peers.storm.hands import Hands
from peers.storm.plan import StormConfig, plan
from peers.storm.ward import Act, Ward
from peers.story import Record
from swarmnet.events import FaultInjected

WEATHER = "weather.json"
"""Name of the weather file inside a run's folder; children get it as ``weather``."""


class Lab:
    """One storm. ``begin`` starts its clock, ``tend`` is called a few times a second.

    ``fork`` starts a child by name and says so with ``enter``, ``note`` hears what was done.
    """

    def __init__(
        self,
        storm: StormConfig,
        seed: int,
        out: Path,
        fork: Callable[[str], Child],
        note: Callable[[FaultInjected], None],
    ) -> None:
        self.hands = Hands(storm, out / WEATHER, fork)
        self.ward = Ward(storm, plan(storm, seed))
        self._note = note
        self._began: float | None = None

    def enter(self, child: Child) -> None:
        """A process of that name has been started."""
        self.hands.take(child)
        self.ward.reserve(child.name)

    def hear(self, event: Record) -> None:
        """What the processes say: who is who, who trains, and who is done."""
        if event["event"] == "peer_started" and event["peer"] in self.hands.children:
            self.hands.know(event["peer"], event["peer_id"])
            self.ward.enter(event["peer"])
        elif event["event"] == "step":
            self.ward.trains(event["peer"])
        elif event["event"] == "peer_finished":
            self.ward.leave(event["peer"])

    def tend(self) -> None:
        """Do what is due. The first call starts the clock."""
        if self._began is None:
            self._began = time.monotonic()
        for act in self.ward.due(time.monotonic() - self._began):
            self._do(act)

    def excuse(self, name: str) -> bool:
        """Whether a child that ended died of what was done to it; then it is started again."""
        act = self.ward.died(name)
        if act is not None:
            self._do(act)
        return act is not None

    def heal(self) -> None:
        """End everything now: who was killed is back, and whoever finishes does so with all."""
        for act in self.ward.heal():
            self._do(act)

    def close(self) -> None:
        """Leave nobody stopped. Safe to call twice."""
        self.hands.thaw_all()

    def _do(self, act: Act) -> None:
        self.hands.do(act)
        fault = act.fault
        successor = act.enters if act.over else ""
        for subject in act.subjects:
            self._note(
                FaultInjected(fault.kind, subject, fault.seconds, act.over, fault.number, successor)
            )
