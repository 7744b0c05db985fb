"""A seeded fake pipeline: events as three stages with a move, a kill and a join leave them."""

from __future__ import annotations

import math
import random
from typing import Any

from swarmnet.events import (
    Evaluated,
    Event,
    FaultInjected,
    PeerFinished,
    PeerStarted,
    SampleWritten,
    StageLoad,
    StageStepped,
    StageTaken,
    StateTaken,
    TripsDone,
)
from tests.unit.synthetic import SAMPLE, T0, record

STAGES = 3
PER_STEP = 8
TOKENS = 512
FIRST = {"peer-0": 0, "peer-1": 0, "peer-2": 0, "peer-3": 1, "peer-4": 1, "peer-5": 2}


class FakePipeline:
    """A step of every stage each second; peer-2 moves at 1/4, peer-3 dies at 1/3, peer-6 joins."""

    def __init__(self, seed: int = 0, steps: int = 60) -> None:
        self.rng = random.Random(seed)
        self.steps = steps
        self.now = T0
        self.serves: dict[str, int] = {}
        self.settled = 0
        self.events: list[dict[str, Any]] = []

    def emit(self, peer: str, event: Event, later: float = 0.0) -> None:
        self.events.append(record(self.now + later, peer, event))

    def start(self, peer: str, role: str) -> None:
        self.emit(peer, PeerStarted(role, "pipeline", "f" * 8, f"id-{peer}"))

    def take(self, peer: str, stage: int, step: int, left: int = -1) -> None:
        self.serves[peer] = stage
        layers = [2 * stage, 2 * stage + 1]
        source = "donor" if step else "seed"
        self.emit(peer, StateTaken(source, step, "w", 0.4, 5_000_000, "id-peer-0"))
        self.emit(peer, StageTaken(stage, left, layers, 400_000, step, 0.5, 5_000_000))

    def step(self, number: int) -> None:
        self.now += 1.0
        progress = number / self.steps
        for stage in range(STAGES):
            peers = [peer for peer, served in self.serves.items() if served == stage]
            for lag, peer in enumerate(peers):
                own = PER_STEP // len(peers)
                stepped = StageStepped(
                    stage, number, len(peers), PER_STEP, own, PER_STEP * TOKENS, 1e-3, 0.01,
                    f"{stage}-{number}", progress,
                )  # fmt: skip
                self.emit(peer, stepped, 0.01 * lag)
                load = StageLoad(
                    stage, number, 1, 3, own, 4 * own, 0.4, 1.0, number // 10, 0, 0, 9000, 70_000
                )
                self.emit(peer, load, 0.02)
        begun = PER_STEP * number
        loss = 1.9 + 3.8 * math.exp(-number / 10) + self.rng.gauss(0, 0.03)
        causes = {"died": 2, "late": 1} if number > self.steps // 3 else {}
        trips = TripsDone(
            begun, 0, 0, begun, begun + sum(causes.values()), causes, PER_STEP,
            PER_STEP * TOKENS, loss, 0.9, 7, progress, [],
        )  # fmt: skip
        self.emit("trainer-0", trips, 0.05)

    def run(self) -> list[dict[str, Any]]:
        self.start("bootstrap", "bootstrap")
        for peer, stage in FIRST.items():
            self.start(peer, "stage")
            self.take(peer, stage, 0)
        self.start("trainer-0", "trainer")
        for number in range(1, self.steps + 1):
            if number == self.steps // 4:
                self.take("peer-2", 2, number - 1, left=0)
            if number == self.steps // 3:
                del self.serves["peer-3"]
                self.emit("demo", FaultInjected("kill", "peer-3"))
            if number == self.steps // 2:
                self.emit("demo", FaultInjected("join", "peer-6"))
                self.start("peer-6", "stage")
                self.take("peer-6", 1, number - 1)
            self.step(number)
        self.close()
        return sorted(self.events, key=lambda line: float(line["time"]))

    def close(self) -> None:
        self.now += 1.0
        for peer in (*self.serves, "trainer-0"):
            done = PeerFinished("finished", 1, 0, 1, 0, 0, 9_000_000, 60.0, 0.0, 400 << 20)
            self.emit(peer, done)
        self.emit("finish", Evaluated("merged", 2.1, 65536))
        self.emit("finish", SampleWritten("def ", SAMPLE))


ENDING = {
    "disagreement": 0.0,
    "plain": True,
    "logits_difference": 0.0,
    "steps": [60, 60, 60],
    "boundary": {"bytes_per_token": 130.0, "fp32_bytes_per_token": 512.0},
}


def fake_pipeline(seed: int = 0, steps: int = 60) -> list[dict[str, Any]]:
    """Events of one fake pipeline, in time order."""
    return FakePipeline(seed, steps).run()
