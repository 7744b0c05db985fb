"""``summary.json``: the figures of one run, computed from its events alone.

Losses are nats per token, sizes bytes, times seconds. A figure that the run cannot answer (no
window without exchanges, a diverged loss) is null, never a guess.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peers.churn import fault_counts, participation, recovery_figures
from peers.coverage import coverage
from peers.pace import links
from peers.story import Record, Story, Worker, tell

# The first steps of a mode are left out of its rate: caches warm up, first partners are dialled.
WARM_UP_STEPS = 5
LAST_STEPS = 20
LEAST_STAMPS = 3


@dataclass(frozen=True)
class Extra:
    """What a run knows beside its events.

    ``begin_at``: progress of the run before which nobody exchanges; ``h``: steps of a window.
    ``disagreement``: exact final disagreement, measured on the replicas' weights.
    ``solo``: label -> {"steps", "loss", ...} of workers that trained alone; ``speedup`` over them.
    """

    begin_at: float = 0.0
    disagreement: float | None = None
    solo: Mapping[str, Any] | None = None
    speedup: float | str | None = None
    h: int | None = None


def summarise(events: Sequence[Record], extra: Extra | None = None) -> dict[str, Any]:
    """The content of ``summary.json``."""
    extra = extra or Extra()
    story = tell(events)
    workers = story.workers
    times = [float(line["time"]) for line in events]
    training_s = story.trained_until - story.began
    steps = sum(len(worker.steps) for worker in workers)
    tokens = sum(int(line["tokens"]) for worker in workers for line in worker.steps)
    train_s = sum(worker.train_s for worker in workers)
    survivors = [len(worker.steps) for worker in workers if worker.survived and worker.steps]
    figures: dict[str, Any] = {
        "seconds": max(times) - min(times) if times else 0.0,
        "training_seconds": training_s,
        "tokens": tokens,
        "steps": int(statistics.median(survivors)) if survivors else 0,
        "steps_per_second": steps / training_s if training_s > 0 else None,
        "tokens_per_second": tokens / training_s if training_s > 0 else None,
        "peers": _peers(story),
        "faults": fault_counts(story),
        "recovery": recovery_figures(story),
        "participation": participation(story, extra.h),
        "workers": [_worker(worker) for worker in workers],
        "loss": _loss(workers),
        "eval": _eval(story),
        "exchanges": _exchanges(workers),
        "bytes_sent": sum(worker.bytes_sent for worker in workers),
        "stall_fraction": sum(w.stall_s for w in workers) / train_s if train_s > 0 else None,
        "exchange_cost": exchange_cost(story, extra.begin_at),
        "disagreement": _disagreement(story, extra.disagreement),
        "memory": _memory(workers),
        "view_age_s": _view_age(workers),
        "data": coverage(events),
        "links": links(story),
    }
    if extra.solo is not None:
        figures["solo"] = dict(extra.solo)
    if extra.speedup is not None:
        figures["speedup"] = extra.speedup
    known: dict[str, Any] = finite(figures)
    return known


def exchange_cost(story: Story, begin_at: float) -> float | None:
    """1 - (step rate while exchanging) / (step rate without), same number of processes.

    Rates come from the stamps of step events inside the windows where all initial workers are in
    the same mode: without up to progress ``begin_at``, with from there until the first fault or the
    first worker's last step, each time from the sixth step on. Workers slowed on purpose do not
    count.
    """
    initial = [worker for worker in story.workers if not worker.joined and worker.slowdown == 1]
    fault = min((float(line["time"]) for line in story.faults), default=math.inf)
    rates = []
    for meeting in (False, True):
        stamps = [
            [
                float(line["time"])
                for line in worker.steps
                if meeting == (line["progress"] >= begin_at)
            ]
            for worker in initial
        ]
        rates.append(_rate([own[WARM_UP_STEPS:] for own in stamps], fault))
    without, within = rates
    return None if without is None or within is None else 1 - within / without


def estimated_disagreement(distances: Sequence[float], workers: int) -> float | None:
    """Disagreement D of ``workers`` replicas from rms distances of random pairs.

    A random pair differs by E|a - b|^2 / P = 2N / (N - 1) * D^2 per parameter.
    """
    if not distances or workers < 2:
        return None
    square = statistics.fmean(distance**2 for distance in distances)
    return math.sqrt(square * (workers - 1) / (2 * workers))


def _rate(stamps: Sequence[Sequence[float]], before: float) -> float | None:
    """Steps per second of all workers together while all step; null if one has too few."""
    if not stamps or not all(stamps):
        return None
    begin, end = max(own[0] for own in stamps), min(before, *(own[-1] for own in stamps))
    total = 0.0
    for own in stamps:
        inside = [time for time in own if begin <= time <= end]
        if len(inside) < LEAST_STAMPS or inside[-1] <= inside[0]:
            return None
        total += (len(inside) - 1) / (inside[-1] - inside[0])
    return total


def _peers(story: Story) -> dict[str, int]:
    """``started`` counts the workers of the beginning, ``killed`` the kills; who came back in its
    own folder has not joined, so started - killed + joined remain, and those that returned so.
    """
    return {
        "started": sum(not worker.joined for worker in story.workers),
        "killed": sum(len(worker.kills) for worker in story.workers),
        "joined": sum(worker.joined for worker in story.workers),
        "finished": sum(worker.finished is not None for worker in story.workers),
    }


def _worker(worker: Worker) -> dict[str, Any]:
    """What one worker did; its exchanges are sides, so a meeting stands in two rows.

    ``met_in_training`` leaves out the consensus phase, which everybody takes part in anyhow.
    """
    met = worker.outcomes("ok", "late")
    return {
        "name": worker.name,
        "slowdown": worker.slowdown,
        "killed": not worker.survived,
        "joined": worker.joined,
        "steps": len(worker.steps),
        "tokens": sum(int(line["tokens"]) for line in worker.steps),
        "exchanges": len(met),
        "met_in_training": sum(line["phase"] == "train" for line in met),
        "solo": len(worker.outcomes("solo")),
        "failed": len(worker.outcomes("failed")),
        "stall_fraction": worker.stall_fraction,
    }


def _loss(workers: Sequence[Worker]) -> dict[str, float | None]:
    """Training loss: mean of the initial workers' first steps, of the survivors' last ones."""
    first = [w.steps[0]["loss"] for w in workers if w.steps and not w.joined]
    last = [
        statistics.fmean(line["loss"] for line in w.steps[-LAST_STEPS:])
        for w in workers
        if w.steps and w.survived
    ]
    return {"first": _mean(first), "last": _mean(last)}


def _eval(story: Story) -> dict[str, float | None]:
    """Held-out loss of the merged model and of the swarm's replicas."""
    losses = story.held_out()
    merged = losses.pop("merged", None)
    replicas = list(losses.values())
    best = min(replicas, default=None)
    return {"merged": merged, "mean_of_peers": _mean(replicas), "best_of_peers": best}


def _exchanges(workers: Sequence[Worker]) -> dict[str, int]:
    """Meetings that succeeded, windows without one, sides that failed.

    Both sides log a success, as ``ok`` or, applied afterwards, as ``late``; so successes are
    halved, upwards because a killed side may not have logged its own. ``solo`` counts one peer's
    window, ``failed`` one side. ``pending`` is not an outcome yet and counts nowhere.
    """

    def sides(*names: str) -> int:
        return sum(len(worker.outcomes(*names)) for worker in workers)

    return {
        "ok": (sides("ok", "late") + 1) // 2,
        "solo": sides("solo"),
        "failed": sides("failed"),
        "late": sides("late"),
    }


def _disagreement(story: Story, exact: float | None) -> dict[str, float | None]:
    """Estimates use meetings of phase ``train`` only: those of the consensus phase are scheduled,
    not random pairs."""
    meetings = story.meetings("train")
    if not meetings:
        return {"first": None, "last": exact}
    ends = []
    for edge in (meetings[0], meetings[-1]):
        alive = story.alive_at(edge["time"])
        some = meetings[:alive] if edge is meetings[0] else meetings[-alive:]
        ends.append(estimated_disagreement([line["distance"] for line in some], alive))
    return {"first": ends[0], "last": ends[1] if exact is None else exact}


def _memory(workers: Sequence[Worker]) -> dict[str, float | None]:
    """Resident bytes of a peer when it left."""
    held = [float(w.finished["memory"]) for w in workers if w.finished and w.finished["memory"]]
    return {"mean": _mean(held), "max": max(held, default=None)}


def _view_age(workers: Sequence[Worker]) -> dict[str, float | None]:
    """Seconds since the last sign of life of live peers, as the workers themselves saw it."""
    views = [line for worker in workers for line in worker.views]
    medians = [float(line["age_median_s"]) for line in views]
    return {
        "median": statistics.median(medians) if medians else None,
        "max": max((float(line["age_max_s"]) for line in views), default=None),
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def finite(value: Any) -> Any:
    """JSON has no NaN: a diverged figure becomes null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
