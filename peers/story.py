"""A run told by its events: who trained when, who met whom, who was hurt.

The one reading of the event files that ``summary.json`` and the report share, so that a figure
and the picture beside it cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Record = dict[str, Any]
Span = tuple[float, float]


@dataclass
class Hurt:
    """What was done to one peer on purpose; ``ended`` is infinite where nothing said so."""

    kind: str
    number: int
    began: float
    ended: float = math.inf
    successor: str = ""
    """Who came back for a killed one: itself, or somebody new."""

    def during(self, begin: float, end: float) -> bool:
        return self.began < end and self.ended > begin


@dataclass
class Worker:
    """One training peer: its own lines of the log, oldest first. Times are wall clock seconds."""

    name: str
    device: str = ""
    parameters: int = 0
    slowdown: float = 1.0
    started: float = math.inf
    starts: list[float] = field(default_factory=list)
    """Of its processes; a killed one may come back in its folder."""
    joined: bool = False
    hurts: list[Hurt] = field(default_factory=list)
    took: Record | None = None
    finished: Record | None = None
    steps: list[Record] = field(default_factory=list)
    exchanges: list[Record] = field(default_factory=list)
    views: list[Record] = field(default_factory=list)
    served_bytes: int = 0

    @property
    def kills(self) -> list[float]:
        return [hurt.began for hurt in self.hurts if hurt.kind == "kill"]

    @property
    def killed(self) -> float | None:
        """When it was killed for good; one that came back is not."""
        last = max(self.kills, default=None)
        return None if last is None or any(start > last for start in self.starts) else last

    @property
    def lives(self) -> list[Span]:
        """From the first step of each of its processes to the end of that process."""
        found = []
        ends = [*self.starts[1:], math.inf]
        for start, after in zip(self.starts, ends, strict=True):
            steps = [line for line in self.steps if start <= line["time"] < after]
            if steps:
                killed = [time for time in self.kills if start <= time < after]
                end = min([*killed, min(self.ended, after)])
                found.append((float(steps[0]["time"] - steps[0]["seconds"]), end))
        return found

    @property
    def survived(self) -> bool:
        """Alive when training ended; a killed peer that came back and finished counts."""
        return self.finished is not None or self.killed is None

    @property
    def ended(self) -> float:
        """When the swarm last had something from it."""
        if not self.survived and self.killed is not None:
            return self.killed
        return max((line["time"] for line in (*self.steps[-1:], *self.exchanges[-1:])), default=0.0)

    @property
    def bytes_sent(self) -> int:
        """From its own book if it left in good order, else from what it had logged."""
        logged = sum(line["bytes_sent"] for line in self.exchanges) + self.served_bytes
        return int(max(self.finished["bytes_sent"], logged) if self.finished else logged)

    @property
    def train_s(self) -> float:
        if self.finished and self.finished["train_s"] > 0 and len(self.starts) < 2:
            return float(self.finished["train_s"])
        return float(sum(line["seconds"] for line in self.steps))

    @property
    def stall_s(self) -> float:
        if self.finished and self.finished["train_s"] > 0 and len(self.starts) < 2:
            return float(self.finished["stall_s"])
        return float(sum(line["stall_s"] for line in self.steps))

    @property
    def step_rate(self) -> float:
        """Inner steps per second of its training time."""
        return len(self.steps) / self.train_s if self.train_s > 0 else 0.0

    @property
    def stall_fraction(self) -> float | None:
        """Share of its training time in which it waited for the network."""
        return self.stall_s / self.train_s if self.train_s > 0 else None

    def outcomes(self, *names: str) -> list[Record]:
        """Its exchanges that ended in one of ``names``."""
        return [line for line in self.exchanges if line["outcome"] in names]


@dataclass
class Story:
    """All workers of a run (first those of the start, then joiners) and what happened to them."""

    workers: list[Worker]
    faults: list[Record]
    names: dict[str, str]
    run: str = ""
    evaluated: list[Record] = field(default_factory=list)
    sample: Record | None = None

    def name_of(self, peer: str) -> str:
        """The name behind a peer id; a name, or an id of nobody known, stays as it is."""
        return self.names.get(peer, peer)

    @property
    def began(self) -> float:
        """Start of the first inner step of the swarm, wall clock seconds; 0 without steps."""
        starts = [w.steps[0]["time"] - w.steps[0]["seconds"] for w in self.workers if w.steps]
        return min(starts, default=0.0)

    @property
    def trained_until(self) -> float:
        """End of the last inner step of the swarm."""
        return max((w.steps[-1]["time"] for w in self.workers if w.steps), default=self.began)

    @property
    def ended(self) -> float:
        """The last step or meeting, hence after the consensus phase."""
        return max((w.ended for w in self.workers if w.steps), default=self.began)

    def held_out(self) -> dict[str, float]:
        """Held-out loss of ``merged`` and of workers, by name; the last word about each counts."""
        known = {"merged", *(worker.name for worker in self.workers)}
        losses = {self.name_of(line["subject"]): float(line["loss"]) for line in self.evaluated}
        return {name: loss for name, loss in losses.items() if name in known}

    def alive_at(self, time: float) -> int:
        """How many workers trained at ``time``."""
        return sum(
            bool(w.steps) and w.steps[0]["time"] - w.steps[0]["seconds"] <= time <= w.ended
            for w in self.workers
        )

    def meetings(self, phase: str = "") -> list[Record]:
        """Sides of meetings that succeeded on time, in time order, of one phase or of all."""
        lines = [
            line
            for worker in self.workers
            for line in worker.outcomes("ok")
            if phase in ("", line["phase"]) and math.isfinite(line["distance"])
        ]
        return sorted(lines, key=lambda line: float(line["time"]))

    def met(self, one: Worker, other: Worker) -> int:
        """Meetings of two workers. Both log each; the larger count forgives a lost last line."""

        def logged(mine: Worker, partner: str) -> int:
            lines = mine.outcomes("ok", "late")
            return sum(self.name_of(line["partner"]) == partner for line in lines)

        return max(logged(one, other.name), logged(other, one.name))


def tell(events: Sequence[Record]) -> Story:
    """Read the events of all processes of one run, in any order."""
    ordered = sorted(events, key=lambda line: float(line["time"]))
    started = [line for line in ordered if line["event"] == "peer_started"]
    names = {line["peer_id"]: line["peer"] for line in started if line["peer_id"]}
    story = Story([], [line for line in ordered if line["event"] == "fault"], names)
    story.run = next((line["run"] for line in started if line["run"]), "")
    others = {line["peer"] for line in started if line["role"] != "worker"}
    workers: dict[str, Worker] = {}
    for line in ordered:
        kind, name = line["event"], line["peer"]
        if kind == "evaluated":
            story.evaluated.append(line)
        elif kind == "sample":
            story.sample = line
        elif kind in ("peer_started", "step", "exchange") and name not in others:
            workers.setdefault(name, Worker(name))
        if name in workers:
            _note(workers[name], line)
    for line in story.faults:
        _hurt(story, workers, line)
    story.workers = sorted(workers.values(), key=lambda w: (w.joined, len(w.name), w.name))
    return story


def _hurt(story: Story, workers: Mapping[str, Worker], line: Record) -> None:
    """Somebody hurt on purpose, or what hurt it is over; also the birth of a newcomer."""
    subject, kind, time = story.name_of(line["subject"]), line["kind"], float(line["time"])
    worker, newcomer = workers.get(subject), workers.get(line["successor"])
    if line["over"] and newcomer is not None and newcomer is not worker:
        newcomer.joined = True
    if worker is None:
        return
    if kind == "join":
        worker.joined = True
    elif not line["over"]:
        worker.hurts.append(Hurt(kind, line["number"], time))
    else:
        for hurt in worker.hurts:
            if (hurt.kind, hurt.number, hurt.ended) == (kind, line["number"], math.inf):
                hurt.ended, hurt.successor = time, line["successor"]


def _note(worker: Worker, line: Record) -> None:
    kind = line["event"]
    worker.started = min(worker.started, float(line["time"]))
    if kind == "peer_started":
        worker.starts.append(float(line["time"]))
        worker.device = line["device"] or worker.device
        worker.parameters = line["parameters"] or worker.parameters
        worker.slowdown = float(line["slowdown"])
    elif kind == "state_taken":
        worker.took = line
    elif kind == "step":
        worker.steps.append(line)
    elif kind == "exchange":
        worker.exchanges.append(line)
    elif kind == "view_seen":
        worker.views.append(line)
    elif kind == "state_served":
        worker.served_bytes += line["bytes"]
    elif kind == "peer_finished":
        worker.finished = line
