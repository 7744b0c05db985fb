"""``summary.json`` of a pipeline: the keys of every run, and those that only a pipeline has.

Losses are nats per token, sizes bytes, times seconds. What a pipeline has no answer to is null.

Of the keys of every run:

- ``exchanges`` are the steps of stages: ``ok`` with several peers in them, ``solo`` with one,
  ``failed`` sides of meetings that came to nothing;
- ``stall_fraction`` is the share of its serving time in which a stage peer computed nothing;
- ``exchange_cost`` is null: a stage cannot go on without its steps;
- ``disagreement`` ``last`` is the largest difference between peers of one stage, 0 if all is well;
- ``eval``: peers of a stage are identical, so ``mean_of_peers`` equals ``merged``.

The ledger balances two books that know nothing of each other: the trainers' and the stages' steps.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peers.coverage import coverage
from peers.pipeline.story import Course, Server, recount
from peers.story import Record
from peers.summary import finite
from swarmnet.events import FINISHED

LAST_REPORTS = 10


def summarise(events: Sequence[Record], ending: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of ``summary.json``; ``ending``: what the last act of the run found."""
    ending = ending or {}
    course = recount(events)
    times = [float(line["time"]) for line in events]
    training_s = course.trained_until - course.began
    tokens = sum(int(line["tokens"]) for line in course.reports)
    ledger = _ledger(course)
    figures: dict[str, Any] = {
        "seconds": max(times) - min(times) if times else 0.0,
        "training_seconds": training_s,
        "tokens": tokens,
        "steps": max((len(course.steps(s)) for s in range(course.stages)), default=0),
        "tokens_per_second": tokens / training_s if training_s > 0 else None,
        "peers": _peers(course),
        "loss": _loss(course),
        "eval": _eval(course),
        "exchanges": _exchanges(course),
        "bytes_sent": sum(server.bytes_sent for server in course.servers)
        + sum(int(s.finished["bytes_sent"]) for s in course.senders if s.finished),
        "stall_fraction": _stall(course.servers),
        "exchange_cost": None,
        "disagreement": {"first": None, "last": ending.get("disagreement")},
        "ledger": ledger,
        "stages": [_stage(course, stage, ledger) for stage in range(course.stages)],
        "servers": [_server(server) for server in course.servers],
        "trips": _trips(course),
        "migrations": _migrations(course),
        "memory": _memory(course),
        "data": coverage(events),
        "checkpoint": {key: ending.get(key) for key in ("plain", "logits_difference", "steps")},
        "boundary": ending.get("boundary"),
    }
    done: dict[str, Any] = finite(figures)
    return done


def accounted(summary: Mapping[str, Any]) -> bool:
    """Every sample that was begun is in exactly one step of every stage."""
    ledger = summary["ledger"]
    whole = ledger["settled"] == ledger["begun"] and not ledger["open"] and not ledger["lost"]
    return whole and all(
        stage["samples"] == ledger["begun"] and not stage["duplicates"] and not stage["missing"]
        for stage in summary["stages"]
    )


def _ledger(course: Course) -> dict[str, Any]:
    """``begun`` samples are ``settled`` (in a step of every stage), ``open`` or ``lost``.

    Open are those that a trainer had in hand when it was done, lost those of a trainer that died
    or was told to leave. ``dropped`` counts what stages forgot and got once more; ``attempts``
    beyond ``begun`` have ``causes``.
    """
    causes: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for sender in course.senders:
        last = sender.last
        causes.update(last["causes"])
        done = sender.finished is not None and sender.finished["reason"] == FINISHED
        unsettled = int(last["begun"]) - int(last["settled"])
        sums["open" if done else "lost"] += unsettled
        for key in ("begun", "settled", "attempts"):
            sums[key] += int(last[key])
    keys = ("begun", "settled", "open", "lost", "attempts")
    dropped = sum(int(line["samples"]) for line in course.lost)
    return {key: sums[key] for key in keys} | {"causes": dict(causes), "dropped": dropped}


def _stage(course: Course, stage: int, ledger: Mapping[str, Any]) -> dict[str, Any]:
    """``samples`` are those in the steps behind the stage's last weights. A sample twice makes them
    more than were begun; one that a trainer thinks settled and no step holds makes them fewer."""
    steps, servers = course.steps(stage), course.at(stage)
    loads = [line for s in servers for line in s.loads if line["stage"] == stage]
    samples = sum(int(line["samples"]) for line in steps)
    busy, seconds = (sum(float(line[key]) for line in loads) for key in ("busy_s", "seconds"))
    tokens = sum(int(line["tokens"]) for line in steps)
    letters = sum(int(line["letter_bytes"]) for line in loads)
    layers, parameters = course.layers(stage)
    return {
        "stage": stage,
        "layers": layers,
        "parameters": parameters,
        "peers": [server.name for server in servers],
        "steps": len(steps),
        "samples": samples,
        "duplicates": max(0, samples - ledger["begun"]),
        "missing": max(0, ledger["settled"] - samples),
        "tokens": tokens,
        "busy": busy / seconds if seconds else None,
        "letter_bytes_per_token": letters / tokens if tokens else None,
        "meeting_bytes": sum(int(line["meeting_bytes"]) for line in loads),
        "recomputed": _totals(servers, stage, "recomputed"),
        "refused": _totals(servers, stage, "refused"),
    }


def _totals(servers: Sequence[Server], stage: int, key: str) -> int:
    """The sum of counters that begin at 0 with every stay: their last words."""
    total = 0
    for server in servers:
        own = [int(line[key]) for line in server.loads if line["stage"] == stage]
        ends = [one for one, after in zip(own, [*own[1:], -1], strict=True) if after < one]
        total += sum(ends)
    return total


def _server(server: Server) -> dict[str, Any]:
    return {
        "name": server.name,
        "slowdown": server.slowdown,
        "killed": server.killed is not None,
        "joined": server.joined,
        "stages": [stay.stage for stay in server.stays],
        "steps": len(server.steps),
        "sequences": server.sequences,
        "bytes_sent": server.bytes_sent,
        "stall_fraction": _stall([server]),
    }


def _peers(course: Course) -> dict[str, int]:
    """Stage peers and trainers; started - killed + joined remain."""
    everybody = course.members
    joined = sum(server.joined for server in course.servers)
    return {
        "started": len(everybody) - joined,
        "killed": sum(one.killed is not None for one in everybody),
        "joined": joined,
        "finished": sum(one.finished is not None for one in everybody),
    }


def _loss(course: Course) -> dict[str, float | None]:
    """Training loss: of the first report with a trip in it, and of the last ten."""
    told = [line for line in course.reports if line["trips"]]
    return {"first": _weighed(told[:1]), "last": _weighed(told[-LAST_REPORTS:])}


def _weighed(reports: Sequence[Record]) -> float | None:
    trips = sum(int(line["trips"]) for line in reports)
    return sum(line["loss"] * line["trips"] for line in reports) / trips if trips else None


def _eval(course: Course) -> dict[str, float | None]:
    merged = [float(e["loss"]) for e in course.evaluated if e["subject"] == "merged"]
    loss = merged[-1] if merged else None
    return {"merged": loss, "mean_of_peers": loss}


def _exchanges(course: Course) -> dict[str, int]:
    steps = [line for stage in range(course.stages) for line in course.steps(stage)]
    together = sum(int(line["members"]) > 1 for line in steps)
    failed = sum(_totals(course.at(s), s, "failed") for s in range(course.stages))
    return {"ok": together, "solo": len(steps) - together, "failed": failed}


def _stall(servers: Sequence[Server]) -> float | None:
    loads = [line for server in servers for line in server.loads]
    seconds = sum(float(line["seconds"]) for line in loads)
    busy = sum(float(line["busy_s"]) for line in loads)
    return max(0.0, 1 - busy / seconds) if seconds else None


def _trips(course: Course) -> dict[str, float | None]:
    """``seconds`` is the mean of a whole trip, forward and back; ``window`` how many at once."""
    told = [line for line in course.reports if line["trips"]]
    trips = sum(int(line["trips"]) for line in told)
    span = course.trained_until - course.began
    return {
        "seconds": sum(line["seconds"] * line["trips"] for line in told) / trips if trips else None,
        "per_second": trips / span if span > 0 else None,
        "window": statistics.median(line["window"] for line in told) if told else None,
    }


def _migrations(course: Course) -> list[dict[str, Any]]:
    return [
        {
            "peer": server.name,
            "from": stay.left,
            "to": stay.stage,
            "at": stay.begin - course.began,
            "seconds": float(stay.taken["seconds"]),
            "bytes": int(stay.taken["bytes"]),
        }
        for server, stay in course.moves()
    ]


def _memory(course: Course) -> dict[str, float | None]:
    """Resident bytes of a peer when it was done."""
    ended = [one.finished for one in course.members if one.finished]
    held = [float(line["memory"]) for line in ended if line["memory"]]
    return {"mean": statistics.fmean(held) if held else None, "max": max(held, default=None)}
