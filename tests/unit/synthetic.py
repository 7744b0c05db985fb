"""A seeded fake run: events as a swarm of four with a kill and a join would leave them."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

from swarmnet.events import (
    CheckpointWritten,
    Evaluated,
    Event,
    ExchangeDone,
    FaultInjected,
    PeerFinished,
    PeerStarted,
    SampleWritten,
    StateServed,
    StateTaken,
    StepDone,
)

SKIP_FIRST = 20
T0 = 1_800_000_000.0
STEP_S = 0.3
PAYLOAD_BYTES = 3_600_000
SAMPLE = 'def merge(self, other):\n    """Return <b>one</b> & only."""\n    return self'


def record(time: float, peer: str, event: Event) -> dict[str, Any]:
    """One line of an event file."""
    fields = dataclasses.asdict(event)  # type: ignore[call-overload]
    return {"time": time, "peer": peer, "event": event.name} | fields


class FakeRun:
    """Four workers step in lockstep of ``STEP_S``; every second step all pairs meet.

    ``worker-3`` dies at one third; ``worker-5`` joins at one half. With exchanges a step takes
    ``1 / (1 - cost)`` times as long.
    """

    slow = ""
    """A worker that sends slowly."""

    def __init__(self, seed: int = 0, steps: int = 400, cost: float = 0.05) -> None:
        self.rng = random.Random(seed)
        self.steps = steps
        self.cost = cost
        self.now = T0
        self.live = [f"worker-{n}" for n in range(1, 5)]
        self.done: dict[str, list[StepDone]] = {}
        self.met: dict[str, list[ExchangeDone]] = {}
        self.events: list[dict[str, Any]] = []

    def emit(self, peer: str, event: Event, later: float = 0.0) -> None:
        self.events.append(record(self.now + later, peer, event))

    def start(self, peer: str, source: str, step: int) -> None:
        self.done[peer], self.met[peer] = [], []
        self.emit(peer, PeerStarted("worker", "demo", "f" * 8, f"id-{peer}", "cpu", 890_000))
        self.emit(peer, StateTaken(source, step, "w" * 8, 0.4, 2 * PAYLOAD_BYTES), 0.5)

    def step(self, number: int, first_of: dict[str, int]) -> None:
        meeting = number > SKIP_FIRST
        seconds = STEP_S / (1 - self.cost) if meeting else STEP_S
        self.now += seconds
        progress = number / self.steps
        rate = 4e-3 * min(1, number / 20) * (1 - 0.9 * max(0.0, progress - 0.2) / 0.8)
        for lag, peer in enumerate(self.live):
            loss = 1.85 + 3.7 * math.exp(-number / 35) + self.rng.gauss(0, 0.07)
            stall = 0.004 if meeting else 0.0
            done = StepDone(number, loss, rate, 1024, progress, seconds, stall)
            if number > first_of.get(peer, 0):
                self.done[peer].append(done)
                self.emit(peer, done, lag * 0.01)

    def meet(self, number: int, phase: str = "train") -> None:
        peers = self.rng.sample(self.live, len(self.live))
        drift = 0.01 * math.exp(-number / 300) if phase == "train" else 0.001
        while peers:
            one = peers.pop()
            chance = self.rng.random()
            if not peers or (chance < 0.01 and phase == "train"):
                self.exchange(one, ExchangeDone(phase, "solo", "", number, reason="nobody free"))
                continue
            other = peers.pop()
            distance = drift * self.rng.uniform(0.9, 1.1)
            for me, partner in ((one, other), (other, one)):
                if chance > 0.99 and phase == "train":
                    event = ExchangeDone(phase, "failed", f"id-{partner}", number, reason="cut")
                else:
                    sizes = (PAYLOAD_BYTES, PAYLOAD_BYTES)
                    event = ExchangeDone(
                        phase, "ok", f"id-{partner}", number, 0.05, *sizes, distance, 1
                    )
                    event = self.timed(event, partner, called=me == one)
                self.exchange(me, event)

    def timed(self, event: ExchangeDone, partner: str, *, called: bool) -> ExchangeDone:
        """``slow`` stretches the payloads of one sender."""
        pace = 0.2 * self.rng.uniform(1, 3) * (10 if partner == self.slow else 1)
        event = dataclasses.replace(
            event, called=called, send_s=pace, receive_s=pace, payload_bytes=PAYLOAD_BYTES
        )
        return dataclasses.replace(event, answer_s=0.02, start_s=0.001) if called else event

    def exchange(self, peer: str, event: ExchangeDone) -> None:
        self.met[peer].append(event)
        self.emit(peer, event, 0.05)

    def finish(self, peer: str) -> None:
        outcomes = [event.outcome for event in self.met[peer]]
        steps = self.done[peer]
        fates = [outcomes.count(name) for name in ("ok", "solo", "failed")]
        sent = sum(event.bytes_sent for event in self.met[peer])
        train_s, stall_s = (sum(getattr(s, k) for s in steps) for k in ("seconds", "stall_s"))
        tokens = 1024 * len(steps)
        finished = PeerFinished(
            "done", len(steps), tokens, *fates, sent, train_s, stall_s, 420 << 20
        )
        self.emit(peer, finished)

    def run(self) -> list[dict[str, Any]]:
        self.emit("bootstrap", PeerStarted("bootstrap", "demo", "f" * 8, "id-bootstrap"))
        for peer in self.live:
            self.start(peer, "seed", 0)
        self.now += 1.0
        first_of: dict[str, int] = {}
        for number in range(1, self.steps + 1):
            if number == self.steps // 3:
                self.live.remove("worker-3")
                self.emit("demo", FaultInjected("kill", "worker-3"))
            if number == self.steps // 2:
                self.emit("demo", FaultInjected("join", "worker-5"))
                self.start("worker-5", "donor", number)
                self.emit("worker-1", StateServed("id-worker-5", 2 * PAYLOAD_BYTES, 0.4))
                first_of["worker-5"] = number + 10
                self.live.append("worker-5")
            self.step(number, first_of)
            if number > SKIP_FIRST and number % 2 == 0:
                self.meet(number)
            if number % 100 == 0:
                self.emit("worker-1", CheckpointWritten(number, 0.1, PAYLOAD_BYTES))
        self.close()
        return sorted(self.events, key=lambda line: float(line["time"]))

    def close(self) -> None:
        for turn in range(4):
            self.now += 0.4
            self.meet(self.steps + turn, "consensus")
        self.now += 1.0
        for peer in self.live:
            self.finish(peer)
            self.emit("demo", Evaluated(peer, 1.9 + self.rng.uniform(0.01, 0.02), 65536), 1.0)
        self.now += 3.0
        self.emit("demo", Evaluated("merged", 1.897, 65536))
        self.emit("demo", SampleWritten("def ", SAMPLE))


def begin_at(steps: int) -> float:
    """Progress at which a fake run of so many steps begins to meet."""
    return (SKIP_FIRST + 0.5) / steps


def fake_run(seed: int = 0, steps: int = 400) -> list[dict[str, Any]]:
    """Events of one fake run, in time order."""
    return FakeRun(seed, steps).run()


def write_run(folder: Path, events: list[dict[str, Any]]) -> None:
    """Lay ``events`` out as the processes of a run would: one file per writer."""
    for event in events:
        path = folder / "peers" / event["peer"] / "events.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
