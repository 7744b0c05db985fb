"""What a soak saw of each worker, and what it says about the swarm.

All times are wall clock seconds, as the events carry them.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Span = tuple[float, float]

STUCK_S = 60.0
"""Longer than this, alive and not frozen, without a step or without a window's end: stuck."""
WARM_S = 30.0
"""Buffers and caches fill while a process starts; growth is counted from here."""
BAR_GROWTH = 0.05
"""Memory is flat when half of the long lives grow by less than this share."""
WINDOWS = ("ok", "late", "solo")


@dataclass(frozen=True)
class Sample:
    """Resident bytes of a worker's Python process and of its daemon."""

    time: float
    python: int
    daemon: int


@dataclass
class Life:
    """One process of a worker, from its fork to its end."""

    began: float
    ended: float | None = None
    exit_code: int | None = None
    killed: bool = False
    samples: list[Sample] = field(default_factory=list)

    def growth(self, part: str) -> tuple[float, float]:
        """Mean of the first third of its samples, and by how many bytes the last third is above."""
        values = [getattr(s, part) for s in self.samples if s.time - self.began >= WARM_S]
        third = max(1, len(values) // 3)
        first = statistics.fmean(values[:third])
        return first, statistics.fmean(values[-third:]) - first


@dataclass
class Worker:
    """One folder: the processes that lived in it, one after the other, and their events."""

    name: str
    lives: list[Life] = field(default_factory=list)
    freezes: list[Span] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    exchanges: list[tuple[float, str]] = field(default_factory=list)
    """Time and outcome of each."""
    bugs: list[str] = field(default_factory=list)
    finished: float | None = None

    def down(self) -> list[Span]:
        """When it was dead or frozen, in order of time."""
        dead = [
            (one.ended, other.began)
            for one, other in itertools.pairwise(self.lives)
            if one.ended is not None
        ]
        return sorted(dead + self.freezes)

    def windows(self) -> list[float]:
        return [time for time, outcome in self.exchanges if outcome in WINDOWS]

    def take(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            self.steps.append(event["time"])
        elif event["event"] == "exchange":
            self.exchanges.append((event["time"], event["outcome"]))
        elif event["event"] == "peer_finished" and event["reason"] == "finished":
            self.finished = event["time"]


@dataclass
class Record:
    """The whole soak. Faults come from ``began`` on; training is over at ``trained``."""

    began: float
    trained: float
    ended: float
    workers: list[Worker]
    bootstrap: Life
    orphans: int = 0


def longest_gap(marks: Sequence[float], within: Span, down: Sequence[Span]) -> float:
    """Longest time between two ``marks``, and from and to the ends of ``within``, without ``down``.

    Time before a kill and after the restart adds up: a worker is not excused by being hurt.
    """
    begin, end = within
    points = [begin, *(mark for mark in marks if begin < mark < end), end]
    longest = 0.0
    for one, other in itertools.pairwise(points):
        if other - one > longest:
            lost = sum(max(0.0, min(other, b) - max(one, a)) for a, b in down)
            longest = max(longest, other - one - lost)
    return longest


def judge(record: Record, long_s: float) -> dict[str, Any]:
    """All figures. ``long_s``: processes that lived as long as this count for memory."""
    rows = [_row(worker, record.trained) for worker in record.workers]
    memory = _memory(record, long_s)
    problems = [f"{row['name']}: {what}" for row in rows for what in row["problems"]]
    if record.orphans:
        problems.append(f"{record.orphans} daemons outlived their killed worker")
    return {
        "minutes": (record.ended - record.began) / 60,
        "kills": sum(row["kills"] for row in rows),
        "freezes": sum(row["freezes"] for row in rows),
        "meetings": sum(row["ok"] + row["late"] for row in rows) // 2,
        "longest_without_step_s": max(row["step_gap_s"] for row in rows),
        "longest_without_window_s": max(row["window_gap_s"] for row in rows),
        "workers": rows,
        "memory": memory,
        "memory_flat": all(part["flat"] for part in memory["workers"].values()),
        "problems": problems,
    }


def _row(worker: Worker, trained: float) -> dict[str, Any]:
    within, down = (worker.lives[0].began, trained), worker.down()
    outcomes = Counter(outcome for _, outcome in worker.exchanges)
    last = worker.lives[-1]
    row: dict[str, Any] = {
        "name": worker.name,
        "kills": sum(life.killed for life in worker.lives),
        "freezes": len(worker.freezes),
        "steps": len(worker.steps),
        **{name: outcomes[name] for name in ("ok", "failed", "pending", "late", "solo")},
        "step_gap_s": longest_gap(worker.steps, within, down),
        "window_gap_s": longest_gap(worker.windows(), within, down),
        "back_s": max((_back(worker, end, trained) for _, end in down), default=0.0),
        "exit_code": last.exit_code,
    }
    problems = list(worker.bugs)
    for what in ("step", "window"):
        if row[f"{what}_gap_s"] > STUCK_S:
            problems.append(f"stuck: {row[f'{what}_gap_s']:.0f} s without a {what}")
    if worker.finished is None or last.exit_code != 0:
        problems.append(f"did not finish (exit code {last.exit_code})")
    return row | {"problems": problems}


def _back(worker: Worker, since: float, trained: float) -> float:
    """Seconds from a restart or a thaw to the next meeting."""
    met = (time for time, outcome in worker.exchanges if outcome == "ok" and time > since)
    return next(met, trained) - since


def _memory(record: Record, long_s: float) -> dict[str, Any]:
    lives = [
        life
        for worker in record.workers
        for life in worker.lives
        if (life.ended or record.ended) - life.began >= long_s and _sampled(life)
    ]
    figures: dict[str, Any] = {"long_s": long_s, "lives": len(lives), "workers": {}}
    for part in ("python", "daemon"):
        figures["workers"][part] = _growth(lives, part)
    own = [record.bootstrap] if _sampled(record.bootstrap) else []
    figures["bootstrap"] = {part: _growth(own, part) for part in ("python", "daemon")}
    return figures


def _growth(lives: Sequence[Life], part: str) -> dict[str, Any]:
    if not lives:
        return {"first_mb": None, "median_mb": None, "largest_mb": None, "flat": False}
    pairs = [life.growth(part) for life in lives]
    first = statistics.median(base for base, _ in pairs)
    median = statistics.median(more for _, more in pairs)
    return {
        "first_mb": first / 1e6,
        "median_mb": median / 1e6,
        "largest_mb": max(more for _, more in pairs) / 1e6,
        "flat": median < BAR_GROWTH * first,
    }


def _sampled(life: Life) -> bool:
    return sum(sample.time - life.began >= WARM_S for sample in life.samples) >= 3


def render(figures: dict[str, Any]) -> str:
    """The table that people read."""
    names = ("kills", "freezes", "steps", "ok", "failed", "pending", "late", "solo")
    lines = [
        f"{figures['minutes']:.1f} minutes, {figures['kills']} kills, {figures['freezes']} freezes,"
        f" {figures['meetings']} meetings",
        f"{'':10}"
        + "".join(f"{name:>9}" for name in names)
        + "   no step no window     back  exit",
    ]
    lines += [
        f"{row['name']:10}"
        + "".join(f"{row[name]:9}" for name in names)
        + f"{row['step_gap_s']:8.1f} s{row['window_gap_s']:8.1f} s{row['back_s']:7.1f} s"
        f"{row['exit_code']!s:>6}"
        for row in figures["workers"]
    ]
    memory = figures["memory"]
    lines.append(
        f"\nresident memory, last third against first: {memory['lives']} lives of "
        f"{memory['long_s']:.0f} s and more"
    )
    for who in ("workers", "bootstrap"):
        for part, row in memory[who].items():
            if row["first_mb"] is None:
                lines.append(f"{who:10}{part:8} nobody lived long enough")
                continue
            lines.append(
                f"{who:10}{part:8}{row['first_mb']:8.1f} MB {row['median_mb']:+7.2f} MB median "
                f"{row['largest_mb']:+7.2f} MB largest  {'flat' if row['flat'] else 'GROWS'}"
            )
    lines += ["", *(figures["problems"] or ["nobody stuck, everybody finished, no bug"])]
    return "\n".join(lines)
