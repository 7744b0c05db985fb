"""A pipeline's run told by its events: who served which stage when, which steps stood, who sent.

The one reading that ``summary.json``, the report and the tests share; see ``peers/story.py`` for
the swarm of whole models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from peers.story import Record

SENT = ("letter_bytes", "meeting_bytes")
Key = tuple[int, str]
"""A step of a stage: its number and its lineage."""


@dataclass
class Stay:
    """One peer at one stage, wall clock seconds. ``left``: the stage it came from, -1: none."""

    stage: int
    begin: float
    end: float
    taken: Record

    @property
    def left(self) -> int:
        return int(self.taken["left"])


@dataclass
class Member:
    """What stage peers and trainers have in common. Times are wall clock seconds."""

    name: str
    joined: bool = False
    killed: float | None = None
    finished: Record | None = None


@dataclass
class Server(Member):
    """One stage peer: its own lines of the log, oldest first."""

    slowdown: float = 1.0
    stays: list[Stay] = field(default_factory=list)
    loads: list[Record] = field(default_factory=list)
    steps: list[Record] = field(default_factory=list)
    adopted: list[float] = field(default_factory=list)
    """When it took over a mate's state."""
    given_bytes: int = 0

    @property
    def sequences(self) -> int:
        """Served, forward and backward."""
        return sum(int(line["sequences"]) for line in self.loads)

    @property
    def bytes_sent(self) -> int:
        """From its own book if it left in good order, else from what it had logged."""
        logged = sum(int(line[key]) for line in self.loads for key in SENT)
        return self.given_bytes + (
            max(int(self.finished["bytes_sent"]), logged) if self.finished else logged
        )


@dataclass
class Sender(Member):
    """One trainer and its reports, oldest first."""

    reports: list[Record] = field(default_factory=list)

    @property
    def last(self) -> Record:
        """Its last word on its ledger."""
        return self.reports[-1]

    def rates(self) -> list[tuple[float, float]]:
        """(wall clock, tokens per second) of each report."""
        return [
            (float(now["time"]), now["tokens"] / max(now["time"] - before["time"], 1e-3))
            for before, now in pairwise(self.reports)
        ]

    def losses(self) -> list[tuple[float, float]]:
        """(wall clock, nats per token) of each report in which a trip ended."""
        return [(float(r["time"]), float(r["loss"])) for r in self.reports if r["trips"]]


@dataclass
class Course:
    """All stage peers (those of the beginning first) and trainers of a run, and what befell it."""

    servers: list[Server]
    senders: list[Sender]
    faults: list[Record]
    names: dict[str, str]
    run: str = ""
    evaluated: list[Record] = field(default_factory=list)
    lost: list[Record] = field(default_factory=list)
    sample: Record | None = None

    def name_of(self, peer: str) -> str:
        """The name behind a peer id; a name, or an id of nobody known, stays as it is."""
        return self.names.get(peer, peer)

    @property
    def members(self) -> list[Member]:
        return [*self.servers, *self.senders]

    @property
    def stages(self) -> int:
        """As many as were served."""
        return max((stay.stage + 1 for s in self.servers for stay in s.stays), default=0)

    @property
    def reports(self) -> list[Record]:
        """Of all trainers, in time order."""
        lines = [line for sender in self.senders for line in sender.reports]
        return sorted(lines, key=_time)

    @property
    def began(self) -> float:
        """When the first sample was on its way, to a report's accuracy; 0 without any."""
        begun = (_time(line) for line in self.reports if line["begun"])
        return min(
            begun, default=min((s.begin for p in self.servers for s in p.stays), default=0.0)
        )

    @property
    def trained_until(self) -> float:
        """The last report in which a trip ended."""
        return max((_time(line) for line in self.reports if line["trips"]), default=self.began)

    @property
    def ended(self) -> float:
        """The last step or report."""
        steps = [_time(server.steps[-1]) for server in self.servers if server.steps]
        reports = [_time(line) for line in self.reports[-1:]]
        return max([*steps, *reports], default=self.began)

    def layers(self, stage: int) -> tuple[list[int], int]:
        """The layers of a stage and its parameters."""
        taken = [s.taken for p in self.servers for s in p.stays if s.stage == stage]
        return (list(taken[0]["layers"]), int(taken[0]["parameters"])) if taken else ([], 0)

    def at(self, stage: int) -> list[Server]:
        """Who served ``stage`` at any time."""
        return [p for p in self.servers if any(stay.stage == stage for stay in p.stays)]

    def moves(self) -> list[tuple[Server, Stay]]:
        """Migrations, oldest first."""
        moved = [(p, stay) for p in self.servers for stay in p.stays if stay.left >= 0]
        return sorted(moved, key=lambda one: one[1].begin)

    def steps(self, stage: int) -> list[Record]:
        """The steps behind the stage's last weights, one line each, oldest first.

        Peers that fell apart have different lineages at one step number. The one that stands at
        the end is followed back: from a step to the one that a peer took just before it, without
        taking over anybody's state between the two.
        """
        taken: dict[Key, Record] = {}
        before: dict[Key, Key] = {}
        for server in self.servers:
            own = [line for line in server.steps if line["stage"] == stage]
            taken |= {_key(line): line for line in own}
            for one, after in pairwise(own):
                if not any(_time(one) < at < _time(after) for at in server.adopted):
                    before[_key(after)] = _key(one)
        return _chain(taken, before)


def _key(line: Record) -> Key:
    return int(line["step"]), str(line["lineage"])


def _chain(taken: dict[Key, Record], before: dict[Key, Key]) -> list[Record]:
    chain: list[Record] = []
    last = max(taken, key=lambda key: (key[0], taken[key]["tokens"]), default=None)
    while last is not None:
        chain.append(taken[last])
        earlier = [key for key in taken if key[0] == last[0] - 1]
        alone = earlier[0] if len(earlier) == 1 else None
        last = before.get(last, alone)
    return chain[::-1]


def recount(events: Sequence[Record]) -> Course:
    """Read the events of all processes of one pipeline, in any order."""
    ordered = sorted(events, key=_time)
    started = [line for line in ordered if line["event"] == "peer_started"]
    names = {line["peer_id"]: line["peer"] for line in started if line["peer_id"]}
    course = Course([], [], [line for line in ordered if line["event"] == "fault"], names)
    course.run = next((line["run"] for line in started if line["run"]), "")
    servers = {line["peer"]: Server(line["peer"]) for line in started if line["role"] == "stage"}
    senders = {line["peer"]: Sender(line["peer"]) for line in started if line["role"] == "trainer"}
    for line in ordered:
        kind, name = line["event"], line["peer"]
        if kind == "evaluated":
            course.evaluated.append(line)
        elif kind == "sample":
            course.sample = line
        elif kind == "samples_lost":
            course.lost.append(line)
        elif name in servers:
            _serve(servers[name], line)
        elif name in senders and kind == "trips":
            senders[name].reports.append(line)
        elif name in senders and kind == "peer_finished":
            senders[name].finished = line
    _hurt(course.faults, names, [*servers.values(), *senders.values()])
    for server in servers.values():
        _close(server)
    course.servers = sorted(servers.values(), key=lambda s: (s.joined, len(s.name), s.name))
    course.senders = [sender for sender in senders.values() if sender.reports]
    return course


def is_pipeline(events: Iterable[Record]) -> bool:
    return any(line["event"] in ("stage_taken", "trips") for line in events)


def _serve(server: Server, line: Record) -> None:
    kind = line["event"]
    if kind == "peer_started":
        server.slowdown = float(line["slowdown"])
    elif kind == "stage_taken":
        server.stays.append(Stay(int(line["stage"]), _time(line), math.inf, line))
    elif kind == "stage_load":
        server.loads.append(line)
    elif kind == "stage_step":
        server.steps.append(line)
    elif kind == "state_taken" and line["source"] == "donor":
        server.adopted.append(_time(line))
    elif kind == "state_served":
        server.given_bytes += int(line["bytes"])
    elif kind == "peer_finished":
        server.finished = line


def _hurt(faults: Sequence[Record], names: dict[str, str], members: Sequence[Member]) -> None:
    for line in faults:
        subject = names.get(line["subject"], line["subject"])
        for member in members:
            if member.name == subject and line["kind"] == "kill":
                member.killed = _time(line)
            elif member.name == subject:
                member.joined = True


def _close(server: Server) -> None:
    """Each stay ends where the next one's download began, or with the peer."""
    for stay, following in pairwise(server.stays):
        stay.end = following.begin - float(following.taken["seconds"])
    for stay in server.stays[-1:]:
        ends = [_time(line) for line in (*server.loads[-1:], *server.steps[-1:])]
        last = max(ends, default=stay.begin)
        end = _time(server.finished) if server.finished else last
        stay.end = min(max(end, stay.begin), server.killed or math.inf)


def _time(line: Record) -> float:
    return float(line["time"])
