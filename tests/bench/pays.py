"""Does the swarm pay? Merged loss of the demo against one worker alone, over several seeds.

For each seed the whole demo runs (kill and join included), then one worker alone for as many steps
as a surviving worker took (T) and for 1.3 T, each over its own full schedule at its own best rate
(`configs/runs/demo-solo.toml`). All three are measured on the same held-out text.

Read it so: `gain` is the loss of one worker at T minus the merged loss (bar: 0.1 nats), `speedup`
how many times the steps one worker needs to get there (bar: 1.3).

Example: python tests/bench/pays.py --seeds 0 1 2 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BAR_GAIN, BAR_SPEEDUP = 0.1, 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run", default="demo", help="run file, or the name of a shipped one")
    parser.add_argument("--out", type=Path, help="keep the runs here (default: thrown away)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        rows = [measure(options.run, seed, folder / f"seed-{seed}") for seed in options.seeds]
    result = {"rows": rows, **verdict(rows)}
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{'seed':>6}{'steps':>7}{'merged':>9}{'alone T':>9}{'1.3 T':>8}{'gain':>8}  speedup")
        for row in rows:
            print(
                f"{row['seed']:6}{row['steps']:7.0f}{row['merged']:9.3f}{row['alone_T']:9.3f}"
                f"{row['alone_1.3T']:8.3f}{row['gain']:8.3f}  {row['speedup']}"
            )
        print(f"median gain {result['median_gain']:.3f} nats; bars met: {result['bars_met']}")


def measure(run: str, seed: int, out: Path) -> dict[str, Any]:
    """One demo with its lone workers, as a user would start it."""
    command = [sys.executable, "-m", "peers.cli", "demo", "--solo", "--json"]
    command += ["--run", run, "--seed", str(seed), "--out", str(out)]
    print(f"seed {seed}: {' '.join(command[2:])}", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    summary = json.loads(done.stdout)
    alone, longer = summary["solo"]["T"], summary["solo"]["1.3T"]
    return {
        "seed": seed,
        "steps": summary["steps"],
        "merged": summary["eval"]["merged"],
        "best_replica": summary["eval"]["best_of_peers"],
        "alone_T": alone["loss"],
        "alone_1.3T": longer["loss"],
        "gain": alone["loss"] - summary["eval"]["merged"],
        "speedup": summary["speedup"],
        "exchange_cost": summary["exchange_cost"],
        "stall_fraction": summary["stall_fraction"],
        "seconds": summary["training_seconds"],
    }


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians over seeds and whether every seed met both bars."""
    return {
        "median_gain": statistics.median(row["gain"] for row in rows),
        "median_merged": statistics.median(row["merged"] for row in rows),
        "bars_met": all(row["gain"] >= BAR_GAIN and fast(row["speedup"]) for row in rows),
    }


def fast(speedup: float | str) -> bool:
    """``">=1.3"`` says that even the longer run lost."""
    if isinstance(speedup, str):
        return speedup.startswith(">=")
    return speedup >= BAR_SPEEDUP


if __name__ == "__main__":
    main()
