"""Half of a stage's peers are killed: how long until the pipeline is as fast as it can be again.

    python tests/bench/pipeline_kill.py --json

Real processes: four peers at stage 0, two at stage 1, all slowed down so that this machine's cores
do not decide. One of the two is killed. The best that is left is three and two peers, hence one
has to move, by placement and lease; a period is ten renewals of the phone book. Prints sequences
per second before, after, and in the end, the seconds until 90 % of the best, and the ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from peers.collect import Tail
from peers.nursery import INVITE, Child, Nursery
from swarmnet.config import RunFile

RUN = Path(__file__).parents[2] / "configs" / "runs" / "pipeline.toml"
COUNTS = (4, 2)
SETTLE_S, WINDOW_S, PERIODS = 25.0, 5.0, 2
SHARE = 0.9


class Bench:
    """One run. ``trips``: when how many trips had ended; ``moves``: who began to serve what."""

    def __init__(self, slowdown: float) -> None:
        overrides = [
            *("pipeline.stages=2", "pipeline.batch=16", "pipeline.floor=1", "membership.renew_s=1"),
            *("batch.sequences=2", "batch.length=64", "model.config.num_hidden_layers=2"),
            *("target.tokens=1000000000", "target.minutes=100"),
        ]
        self._run = RunFile.load(RUN, overrides)
        self.out = Path(tempfile.mkdtemp(prefix="bench-kill-"))
        self._nursery = Nursery(self.out / "peers")
        self._tail = Tail(self.out)
        self._settings = {"threads": 1, "host": "127.0.0.1", "device": "cpu", "serve_s": 0.0}
        self._slow = self._settings | {"slowdown": slowdown}
        self.trips: list[tuple[float, int]] = []
        self.ledger: dict[str, Any] = {}
        self.moves: list[tuple[float, str, int]] = []

    def run(self) -> dict[str, Any]:
        first = self._nursery.start("bootstrap", "bootstrap_child", self._run.raw, self._settings)
        self.watch(60.0, until=(first.out / INVITE).exists)
        invite = (first.out / INVITE).read_text().strip()
        peers = [
            self._peer(stage, n, invite) for stage, count in enumerate(COUNTS) for n in range(count)
        ]
        self._nursery.start("trainer", "trainer_child", invite, self._settings)
        self.watch(90.0, until=lambda: bool(self.trips))
        self.watch(SETTLE_S)
        before = self.rate(time.time() - 2 * WINDOW_S, time.time())
        killed = time.time()
        peers[-1].kill()
        period_s = 10 * self._run.config.membership.renew_s
        self.watch(3 * PERIODS * period_s, until=lambda: self._back(killed, before))
        back = time.time() - killed if self._back(killed, before) else None
        lowest = self.rate(killed + 1.0, killed + 1.0 + WINDOW_S)
        self.watch(WINDOW_S)
        return {
            "before": before,
            "after_the_kill": lowest,
            "in_the_end": self.rate(time.time() - WINDOW_S, time.time()),
            "seconds_until_90_percent": back,
            "period_s": period_s,
            "moves": [
                f"{peer} to stage {stage} after {at - killed:.1f} s"
                for at, peer, stage in self.moves
                if at > killed
            ],
            "ledger": self.ledger,
        }

    def rate(self, start: float, end: float) -> float:
        """Sequences per second of trips that ended in between."""
        ended = sum(trips for at, trips in self.trips if start < at <= end)
        return ended * self._run.config.batch.sequences / max(end - start, 1e-6)

    def watch(self, seconds: float, until: Any = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            time.sleep(0.2)
            for line in self._tail.poll():
                self._note(line)

    def close(self) -> None:
        self._nursery.close()
        shutil.rmtree(self.out, ignore_errors=True)

    def _peer(self, stage: int, number: int, invite: str) -> Child:
        name = f"stage-{stage}-{number}"
        return self._nursery.start(name, "stage_child", invite, self._slow, stage)

    def _back(self, killed: float, before: float) -> bool:
        now = time.time()
        return now > killed + 2 * WINDOW_S and self.rate(now - WINDOW_S, now) >= SHARE * before

    def _note(self, line: dict[str, Any]) -> None:
        if line["event"] == "trips":
            self.trips.append((line["time"], line["trips"]))
            self.ledger = {
                key: line[key] for key in ("begun", "open", "whole", "settled", "causes")
            }
        elif line["event"] == "stage_taken":
            self.moves.append((line["time"], line["peer"], line["stage"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slowdown", type=float, default=12.0, help="of every stage peer")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    bench = Bench(args.slowdown)
    try:
        result = bench.run()
    finally:
        bench.close()
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:26} {value:.2f}" if isinstance(value, float) else f"{key:26} {value}")


if __name__ == "__main__":
    main()
