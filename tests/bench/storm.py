"""The published churn storm on real processes here, and with all its 32 replicas in virtual time.

Published (ft-diloco on torchft, one 16-core machine): 32 replicas of 3.3 M parameters, H 20, for 30
minutes a kill every 60 s, a stall every 240 s and a partition every 300 s on the mean: 27 kills
recovered, resume median 57 s, fully back 149 s, 97 % of syncs commit, 97.7 % of the fault-free
throughput, about 16 of 32 take part in each sync.

Here: NoLoCo (`configs/runs/noloco.toml`, H 20), by default 12 workers of 0.13 M parameters, as many
as two cores carry, under the same faults per minute (`configs/storms/storm32.toml`; lengths of
stalls and partitions are not published and ours), so each worker is hurt more often than there. A
killed one comes back in its own folder, forked from the preloaded server. Every step takes a third
of a second (`--step`), ten times what it computes, so that each has a machine of its own: else
those that live would take what the dead leave, and a fork would wait for eleven others. The same
run without faults comes first, for the same time. The machine must be idle; `busy` says how many
cores were at work.

An exchange commits of those that two had agreed upon; a call that reaches nobody began none, and
the share with such calls stands below. `able`: of peers to whom nothing is done in that round.

`cold`: seconds from a typed `swarmnet peer` to the end of its first step, imports included.

Example: python tests/bench/storm.py --peers 6 --minutes 1.5 --json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import storm_sim

from peers.brood import Brood
from peers.churn import commits, fault_counts
from peers.configs_folder import shipped
from peers.demo import Demo, DemoOptions
from peers.stop import Stop
from peers.storm.plan import StormConfig, load
from peers.story import Story, Worker, tell
from swarmnet.config import RunFile
from swarmnet.events import read_events

RUN = shipped("runs", "noloco")
OVERRIDES = (
    "target.tokens=1000000000000",
    "batch.length=64",
    "model.config.hidden_size=64",
    "model.config.intermediate_size=176",
    "model.config.num_hidden_layers=2",
    "model.config.initializer_range=0.125",
)
SETTINGS = {"threads": 1, "host": "127.0.0.1", "device": "cpu", "checkpoint_s": 10.0}
SERVE_S = 120.0
COLD_S = 120.0
PUBLISHED = {
    "resume_s": 57.0,
    "fully_back_s": 149.0,
    "commits": 0.97,
    "throughput": 0.977,
    "participation": 0.5,
}
BARS = {
    "resume_s": 10.0,
    "fully_back_s": 25.0,
    "commits": 0.98,
    "throughput": 0.98,
    "participation": 0.95,
    "loss": 0.01,
}
AT_MOST = ("resume_s", "fully_back_s", "loss")


@dataclass(frozen=True)
class Row:
    """One run. ``step_rate``: steps per second in which a worker lived and was not frozen;
    ``useful``: steps behind the last weights of all workers; redone work does not count."""

    faults: dict[str, int]
    resume_s: dict[str, float | None]
    fully_back_s: dict[str, float | None]
    not_back: int
    commits: float | None
    calls: float | None
    alive: float | None
    able: float | None
    step_rate: float
    useful: int
    exchanges: int
    merged: float
    disagreement: float | None
    busy_cores: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each of the two runs")
    parser.add_argument("--storm", default="storm32", help="file, or name of a shipped one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--step", type=float, default=0.35, help="seconds that a step takes")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--no-sim", action="store_true", help="real processes only")
    parser.add_argument("--sim-only", action="store_true", help="virtual time only")
    parser.add_argument("--out", type=Path, help="keep the runs here; it must be new")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    result: dict[str, Any] = {"published": PUBLISHED, "bars": BARS}
    back_s = None
    if not options.sim_only:
        with tempfile.TemporaryDirectory(prefix="swarmnet-storm-") as scratch:
            result |= measured(options, options.out or Path(scratch))
        back_s = result["storm"]["resume_s"]["median"]
    if not options.no_sim:
        result["sim"] = storm_sim.measure(load(options.storm), options.seed, back_s or 3.0)
    print(json.dumps(result) if options.json else render(result))


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    said = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    said("without faults")
    calm = run(options, folder / "calm", None)
    said("in the storm")
    storm = run(options, folder / "storm", load(options.storm))
    said("cold start")
    ratios = {
        "throughput": storm.step_rate / calm.step_rate,
        "useful": storm.useful / calm.useful,
        "exchanges": storm.exchanges / calm.exchanges,
        "loss": storm.merged / calm.merged - 1,
        "per_core": (storm.step_rate / storm.busy_cores) / (calm.step_rate / calm.busy_cores),
    }
    return {
        "peers": options.peers,
        "calm": asdict(calm),
        "storm": asdict(storm),
        "ratios": ratios,
        "cold_s": cold_start(folder / "cold"),
        "met": met(storm, ratios),
    }


def met(storm: Row, ratios: dict[str, float]) -> dict[str, bool]:
    """Which bars are met; a median that does not exist meets none."""
    figures = {
        "resume_s": storm.resume_s["median"],
        "fully_back_s": storm.fully_back_s["median"],
        "commits": storm.commits,
        "participation": storm.able,
        "throughput": ratios["throughput"],
        "loss": ratios["loss"],
    }
    return {
        name: value is not None
        and (value <= BARS[name] if name in AT_MOST else value >= BARS[name])
        for name, value in figures.items()
    }


# ---- one run ------------------------------------------------------------------------------------


def run(options: argparse.Namespace, out: Path, storm: StormConfig | None) -> Row:
    overrides = [*OVERRIDES, f"target.minutes={options.minutes}", f"seed={options.seed}"]
    run_file = RunFile.load(RUN, [*overrides, *options.overrides])
    settings = SETTINGS | {"serve_s": SERVE_S, "step_s": options.step}
    demo = DemoOptions(run_file, out, options.peers, False, None, settings, storm=storm)
    clock = Clock()
    out.mkdir(parents=True)
    summary = Demo(demo, stopped(), clock.hear).run()
    return row(tell(list(read_events(out / "events.jsonl"))), summary, clock.busy())


def row(story: Story, summary: dict[str, Any], busy_cores: float) -> Row:
    sides = [e for w in story.workers for e in w.exchanges if e["phase"] == "train"]
    good = sum(side["outcome"] in ("ok", "late") for side in sides)
    agreed = commits(sides)
    lived = sum(awake(worker) for worker in story.workers)
    return Row(
        faults=fault_counts(story),
        resume_s=summary["recovery"]["resume_s"],
        fully_back_s=summary["recovery"]["fully_back_s"],
        not_back=summary["recovery"]["missing"],
        commits=agreed["begun"],
        calls=agreed["called"],
        alive=summary["participation"]["alive"],
        able=summary["participation"]["able"],
        step_rate=sum(len(worker.steps) for worker in story.workers) / lived,
        useful=sum(max(e["step"] for e in w.steps) for w in story.workers if w.steps),
        exchanges=good // 2,
        merged=summary["eval"]["merged"],
        disagreement=summary["disagreement"]["last"],
        busy_cores=busy_cores,
        seconds=summary["training_seconds"],
    )


def awake(worker: Worker) -> float:
    """Seconds from the first step of each of its processes to its last, freezes taken off."""
    total = 0.0
    for begin, end in worker.lives:
        last = max(e["time"] for e in worker.steps if begin <= e["time"] <= end)
        frozen = [h for h in worker.hurts if h.kind == "freeze" and h.during(begin, last)]
        total += last - begin - sum(min(h.ended, last) - max(h.began, begin) for h in frozen)
    return total


class Clock:
    """Cores at work on this machine, of all its processes, from the first step to the last."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)
        self._due = 0.0

    def hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "step" and time.monotonic() >= self._due:
            self._due = time.monotonic() + 0.5
            self._last = time.monotonic(), busy_seconds()
            self._first = self._first or self._last

    def busy(self) -> float:
        assert self._first is not None
        seconds = self._last[0] - self._first[0]
        return (self._last[1] - self._first[1]) / seconds if seconds else 0.0


def busy_seconds() -> float:
    """User, nice and system time of all cores since the machine started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(map(int, fields[1:4])) / os.sysconf("SC_CLK_TCK")


# ---- beside it: a cold start --------------------------------------------------------------------


def cold_start(out: Path) -> float:
    """Seconds from the typed command to the end of the first step, beside a worker that trains."""
    run_file = RunFile.load(RUN, [*OVERRIDES, "target.minutes=10"])
    brood = Brood(out, SETTINGS, stopped(), lambda event: None)
    stranger = out / "peers" / "stranger"
    process = None
    try:
        invite = brood.bootstrap(run_file.raw)
        worker = brood.start("worker-0", "worker_child", invite, SETTINGS)
        await_step(worker.out, brood.watch)
        command = [sys.executable, "-m", "peers.cli", "peer", invite, "--role", "worker"]
        command += ["--out", str(stranger), "--set", "host=127.0.0.1", "--set", "threads=1"]
        began = time.time()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        return await_step(stranger, brood.watch) - began
    finally:
        if process is not None:
            process.terminate()
            process.wait(15)
        brood.close()


def await_step(folder: Path, watch: Callable[[], None]) -> float:
    """When the first step of a peer had ended, by its own log."""
    deadline = time.monotonic() + COLD_S
    path = folder / "events.jsonl"
    while time.monotonic() < deadline:
        watch()
        lines = read_events(path) if path.exists() else ()
        stamp = next((line["time"] for line in lines if line["event"] == "step"), None)
        if stamp is not None:
            return float(stamp)
    raise SystemExit(f"no step in {folder} within {COLD_S:.0f} s")


def stopped() -> Stop:
    stop = Stop()
    stop.on_signals()
    return stop


# ---- text ----------------------------------------------------------------------------------------


def render(result: dict[str, Any]) -> str:
    lines = render_real(result) if "storm" in result else []
    return "\n".join([*lines, *(storm_sim.render(result["sim"]) if "sim" in result else [])])


def render_real(result: dict[str, Any]) -> list[str]:
    storm, calm, ratios = result["storm"], result["calm"], result["ratios"]
    resume, back = storm["resume_s"], storm["fully_back_s"]
    table = [
        ("resume after a kill, median", seconds(resume["median"]), "57 s", "resume_s"),
        ("  longest", seconds(resume["max"]), "", ""),
        ("fully back, median", seconds(back["median"]), "149 s", "fully_back_s"),
        ("  longest", seconds(back["max"]), "", ""),
        ("agreed exchanges that commit", share(storm["commits"]), "97 %", "commits"),
        ("  calls to nobody among them", share(storm["calls"]), "", ""),
        ("  without faults", share(calm["commits"]), "", ""),
        ("able peers in each round", share(storm["able"]), "50 %", "participation"),
        ("  of all alive, frozen too", share(storm["alive"]), "", ""),
        ("  without faults", share(calm["alive"]), "", ""),
        ("steps per live second / calm", share(ratios["throughput"]), "97.7 %", "throughput"),
        ("  per busy core", share(ratios["per_core"]), "", ""),
        ("  useful steps of all", share(ratios["useful"]), "", ""),
        ("  exchanges of all", share(ratios["exchanges"]), "97.7 %", ""),
        ("merged loss / calm - 1", f"{100 * ratios['loss']:+.2f} %", "", "loss"),
    ]
    head = (
        f"{result['peers']} workers, {storm['seconds']:.0f} s; {storm['faults']}; "
        f"{storm['not_back']} not fully back at the end\n"
        f"busy cores: {storm['busy_cores']:.2f} in the storm, {calm['busy_cores']:.2f} without; "
        f"merged {storm['merged']:.4f} and {calm['merged']:.4f} nats per token\n"
        f"{'':32}{'here':>10}{'published':>12}  bar"
    )
    body = [
        f"{name:32}{value:>10}{published:>12}  {verdict(result['met'], bar)}"
        for name, value, published, bar in table
    ]
    return [head, *body, f"{'cold start, typed to first step':32}{result['cold_s']:8.1f} s"]


def verdict(met: dict[str, bool], name: str) -> str:
    return "" if not name else f"{BARS[name]:g} {'met' if met[name] else 'MISSED'}"


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


if __name__ == "__main__":
    main()
