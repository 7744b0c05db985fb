"""What a storm did to a swarm: who took part in spite of it, and how soon the killed were back.

Pure functions of a run's story. A *period* is the time in which a peer takes half as many steps
again as its cadence asks for, the longest that a window lasts as a rule.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peers.story import Record, Span, Story, Worker

PERIODS = 1.5


@dataclass(frozen=True)
class Recovery:
    """One kill of which somebody came back. Seconds after the kill; None: not before the end.

    ``forked``: its process began; ``resumed``: its first inner step had ended; ``met``: its first
    exchange after that step had been committed, so that work of its own counted.
    """

    name: str
    forked: float
    resumed: float | None
    met: float | None


def recoveries(story: Story) -> list[Recovery]:
    """In the order of the kills."""
    workers = {worker.name: worker for worker in story.workers}
    found = []
    for worker in story.workers:
        for hurt in worker.hurts:
            back = workers.get(hurt.successor)
            if hurt.kind == "kill" and back is not None:
                found.append((hurt.began, _recovery(back, hurt.began, hurt.ended)))
    return [recovery for _, recovery in sorted(found, key=lambda pair: pair[0])]


def recovery_figures(story: Story) -> dict[str, Any]:
    """Medians and maxima of ``recoveries``; ``missing``: back, but not fully before the end."""
    back = recoveries(story)
    resumed = [one.resumed for one in back if one.resumed is not None]
    met = [one.met for one in back if one.met is not None]
    return {
        "returned": len(back),
        "resume_s": _middle(resumed),
        "fully_back_s": _middle(met),
        "missing": len(back) - len(met),
    }


def fault_counts(story: Story) -> dict[str, int]:
    """Faults by kind; a partition that hit many is one. ``returned``: came back after a kill."""
    begun = {(line["kind"], line["number"], line["subject"] if line["kind"] != "partition" else "")
             for line in story.faults if not line["over"]}  # fmt: skip
    counts = Counter(kind for kind, *_ in begun)
    returned = sum(bool(line["successor"]) for line in story.faults if line["over"])
    return dict(sorted(counts.items())) | ({"returned": returned} if returned else {})


def commits(sides: Sequence[Record]) -> dict[str, float | None]:
    """``begun``: share of the exchanges that two had agreed upon and that counted on time or late.

    ``called``: the same, calls that reached nobody among those that failed. Windows that ended
    alone are neither.
    """
    good = sum(line["outcome"] in ("ok", "late") for line in sides)
    open_still = sum(line["outcome"] == "pending" for line in sides)
    open_still -= sum(line["outcome"] == "late" for line in sides)
    failed = [line for line in sides if line["outcome"] == "failed"]
    broken = sum(not line["called"] or line["answer_s"] > 0 for line in failed)
    begun, called = good + open_still + broken, good + open_still + len(failed)
    return {
        "begun": good / begun if begun else None,
        "called": good / called if called else None,
    }


def participation(story: Story, h: int | None) -> dict[str, float | None]:
    """Share of live peers that complete an exchange in a period, over all periods of the training.

    ``alive``: of all whose process trains through the period, frozen ones too. ``able``: of those
    to whom nothing is done in it. A period is as long as the peer's own steps make it. Before the
    first exchange of the run nothing is counted.
    """
    met = story.meetings("train")
    if h is None or not met:
        return {"period_s": None, "alive": None, "able": None}
    alive, able, lengths = list[bool](), list[bool](), list[float]()
    within = float(met[0]["time"]), story.trained_until
    for worker in story.workers:
        if worker.steps:
            step_s = statistics.median(float(line["seconds"]) for line in worker.steps)
            lengths.append(PERIODS * h * step_s)
            for took_part, hurt in _periods(worker, lengths[-1], within):
                alive.append(took_part)
                able += [] if hurt else [took_part]
    return {"period_s": statistics.median(lengths), "alive": _share(alive), "able": _share(able)}


def _periods(worker: Worker, period_s: float, within: Span) -> Iterator[tuple[bool, bool]]:
    """Whether it met, and whether it was hurt, in each period of its lives."""
    times = [float(line["time"]) for line in worker.outcomes("ok", "late")]
    for first, last in worker.lives:
        begin = max(first, within[0])
        while (end := begin + period_s) <= min(last, within[1]):
            met = bisect_left(times, end) > bisect_left(times, begin)
            yield met, any(hurt.during(begin, end) for hurt in worker.hurts)
            begin = end


def _recovery(worker: Worker, killed: float, forked: float) -> Recovery:
    after = (float(line["time"]) for line in worker.steps if line["time"] >= forked)
    resumed = next(after, None)
    met = None
    if resumed is not None:
        times = (float(line["time"]) for line in worker.outcomes("ok") if line["time"] >= resumed)
        met = next(times, None)
    return Recovery(
        worker.name,
        forked - killed,
        None if resumed is None else resumed - killed,
        None if met is None else met - killed,
    )


def _middle(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "max": None}
    return {"median": statistics.median(values), "max": max(values)}


def _share(took_part: Sequence[bool]) -> float | None:
    return sum(took_part) / len(took_part) if took_part else None
