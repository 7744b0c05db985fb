"""What leaving costs: seconds from the order to the exit, and what is lost, a kill -9 beside it.

Real workers on this machine leave one after another, on SIGTERM; each is replaced by a new one.
``kept`` is the share of them whose unfinished window a neighbour has confirmed; ``moved`` compares
by how much the heir's weights moved with what the leaver parted with, ``left`` is what its last
checkpoint still holds of it (what the codec cut off). The law itself, the sum of the replicas with
leavers and with killed peers, is computed from simulated peers in virtual time, where every step is
known.

python -m tests.bench.leave --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from swarmnet.sim import clock
from tests.swarm.herd import Herd, kept_back
from tests.unit.swarms import Swarm, drift

BOUND_S = 5.0
OVERRIDES = ("target.tokens=1000000000", "cadence.name=every_h", "cadence.h=40", "outer=noloco")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leavers", type=int, default=10, help="that get a SIGTERM")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        real = leave_one_by_one(Path(folder), options.leavers)
    found = real | {"law": law(options.seed)}
    print(json.dumps(found) if options.json else told(found))


def leave_one_by_one(folder: Path, leavers: int) -> dict[str, Any]:
    """Three workers at a time; the oldest leaves as soon as all have met."""
    exits, outcomes, said_s, sizes, reasons = [], [], [], [], []
    left, moved = [], []
    with Herd(folder, *OVERRIDES) as herd:
        workers = {f"w{number}": herd.worker(f"w{number}") for number in range(3)}
        for number in range(3, 3 + leavers):
            herd.wait_met(*workers, times=1)
            name = next(iter(workers))
            goer = workers.pop(name)
            began = time.monotonic()
            goer.terminate()
            assert goer.join(60.0)
            exits.append(time.monotonic() - began)
            herd.poll()
            [farewell] = herd.of(name, "farewell")
            outcomes.append(farewell["outcome"])
            said_s.append(farewell["seconds"])
            sizes.append(farewell["bytes"])
            reasons += [farewell["reason"]] if farewell["outcome"] == "nobody" else []
            if farewell["outcome"] == "given":
                left.append(kept_back(goer.out) / farewell["distance"])
                moved.append(inherited(herd, name) / farewell["distance"])
            workers[f"w{number}"] = herd.worker(f"w{number}")
    kept = [outcome in ("given", "nothing") for outcome in outcomes]
    return {
        "leavers": leavers,
        "exit_s": {"median": statistics.median(exits), "most": max(exits)},
        "farewell_s": {"median": statistics.median(said_s), "most": max(said_s)},
        "bytes_median": statistics.median(sizes),
        "outcomes": {each: outcomes.count(each) for each in sorted(set(outcomes))},
        "reasons": reasons,
        "left": {"median": statistics.median(left), "most": max(left)},
        "moved": {"least": min(moved), "most": max(moved)},
        "kept": sum(kept) / len(kept),
        "within_bound": sum(seconds <= BOUND_S for seconds in exits) / len(exits),
    }


def inherited(herd: Herd, leaver: str) -> float:
    """By how much its heir's weights moved; root mean square."""
    [started] = herd.of(leaver, "peer_started")

    def took() -> list[float]:
        meetings = (line for line in herd.events if line["event"] == "exchange")
        of_it = (line for line in meetings if line["partner"] == started["peer_id"])
        return [line["distance"] for line in of_it if line["outcome"] == "inherited"]

    herd.wait(took, "inheritance")
    [distance] = took()
    return distance


def law(seed: int, n: int = 16, gone: int = 8) -> dict[str, float]:
    """Half of a simulated swarm goes; ``lost`` is the work of theirs that nobody has, over all of
    it that they had not shared."""

    async def play(kill: bool) -> tuple[float, float, float]:
        swarm = Swarm(n, h=20, seed=seed)
        await swarm.start()
        lost = had = 0.0
        for number in range(gone):
            await asyncio.sleep(7.3)
            peer = swarm.peers[number]
            if kill:
                peer.settle()
                unshared = peer.subject.live - peer.subject.met
                swarm.crash(number)
                lost += float(np.abs(unshared).sum())
                had += float(np.abs(unshared).sum())
            else:
                said = await peer.leave()
                swarm.crash(number)
                had += float(np.abs(said.gone).sum()) if said.gone is not None else 0.0
                lost += float(np.abs(peer.subject.live - peer.subject.met).sum())
        await swarm.settle(swarm.peers[gone:])
        return lost, had, drift(swarm.peers)

    left, left_had, drifted = clock.run(play(kill=False))
    killed, killed_had, _ = clock.run(play(kill=True))
    return {
        "lost_leaving": left / left_had,
        "lost_killed": killed / killed_had,
        "mean_law_error": drifted,
    }


def told(found: dict[str, Any]) -> str:
    exits, sums = found["exit_s"], found["law"]
    lines = (
        f"{found['leavers']} leavers: gone after {exits['median']:.2f} s, at most "
        f"{exits['most']:.2f} s; {found['within_bound']:.0%} within {BOUND_S:.0f} s",
        f"{found['kept']:.0%} of their windows kept: {found['outcomes']}; heirs moved by "
        f"{found['moved']['least']:.6f} to {found['moved']['most']:.6f} of what was given, leavers "
        f"kept {found['left']['median']:.2%}, {found['left']['most']:.2%} at most",
        f"in virtual time: {sums['lost_leaving']:.1%} of unshared work is lost by leaving, "
        f"{sums['lost_killed']:.0%} by kill -9; the mean is off by {sums['mean_law_error']:.1e}",
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
