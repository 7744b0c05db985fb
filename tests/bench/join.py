"""What a join takes, and what it takes from those who give: 1, 10 and 100 M parameters.

    idle      the state of a donor that has nothing else to do, beside the same bytes over a bare
              ``p2pd`` stream between the same daemons, in turns. ``ratio``: our rate over that of
              the bare stream, from the first word to the last byte in its place, with the donor's
              copy and all hashes. Core-seconds per GiB are process and daemon of each side.
    training  a donor that trains as fast as it can, on a core of its own, gives at its default pace
              to one joiner after another, in turns with windows as long in which nobody asks.
              ``slower``: 1 - its steps per second while it gives over those while it does not.
    command   ``swarmnet peer`` from the command line into a swarm of one that trains: seconds of
              each part until the first meeting that counts what it has done itself.

Example: python tests/bench/join.py --sizes 1 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import join_donor
import torch
from procfs import children, cpu_seconds

from peers.collect import Tail
from peers.station import Station
from peers.take import Wish, take_state
from peers.visit import visiting
from swarmnet.config import PeerConfig
from swarmnet.net.node import Node
from swarmnet.wire.invite import Invite
from tests.swarm.herd import Herd

ROUNDS = 5
GIB = 1 << 30
PATIENCE_S = 120.0
BAR_RATE, BAR_SLOWER = 0.8, 0.05
MODELS = {1: (128, 5), 10: (320, 8), 100: (1024, 8)}
"""Million parameters -> width and layers of a model of about that size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100], choices=MODELS)
    parser.add_argument("--window", type=float, default=20.0, help="seconds, or one whole state")
    parser.add_argument("--windows", type=int, default=4, help="with a joiner, and without")
    parser.add_argument("--skip-training", action="store_true")
    parser.add_argument("--skip-command", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"part": "idle", "million": size} | idle(Path(folder), size * 1_000_000))
        show(rows[-1])
        if not args.skip_training:
            with tempfile.TemporaryDirectory() as folder:
                rows.append({"part": "training"} | training(Path(folder), size, args))
            show(rows[-1])
        if not args.skip_command:
            with tempfile.TemporaryDirectory() as folder:
                rows.append({"part": "command", "million": size} | command(Path(folder), size))
            show(rows[-1])
    if args.json:
        print(json.dumps({"bars": {"ratio": BAR_RATE, "slower": BAR_SLOWER}, "rows": rows}))


def show(row: dict[str, Any]) -> None:
    said = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print("  ".join(said), file=sys.stderr, flush=True)


# ---- from an idle donor -------------------------------------------------------------------------


def idle(folder: Path, parameters: int) -> dict[str, Any]:
    ours, theirs = multiprocessing.Pipe()
    work = (folder, parameters, theirs)
    donor = multiprocessing.get_context("spawn").Process(target=join_donor.serve, args=work)
    donor.start()
    try:
        if not ours.poll(PATIENCE_S):
            raise TimeoutError("the donor did not start")
        peer, addresses = ours.recv()
        assert donor.pid is not None
        return asyncio.run(in_turns(folder, parameters, peer, (addresses, donor.pid)))
    finally:
        ours.send("end")
        donor.join(10.0)
        donor.kill()


async def in_turns(
    folder: Path, parameters: int, peer: str, donor: tuple[tuple[str, ...], int]
) -> dict[str, Any]:
    addresses, pid = donor
    node = await Node.start(join_donor.options(folder, "joiner.key", tuple(addresses)))
    into = {name: torch.zeros_like(t) for name, t in join_donor.tensors(parameters).items()}
    nbytes = sum(4 * tensor.numel() for tensor in into.values() if tensor.ndim)
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    cores: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    try:
        for turn in range(ROUNDS + 1):
            for way in seconds:
                for tensor in into.values():
                    tensor.zero_()
                before, began = machine(pid), time.perf_counter()
                if way == "bare":
                    await join_donor.read_bare(node, peer, nbytes)
                else:
                    await take_state(node, into, Wish(lambda: [peer], PATIENCE_S), lambda e: None)
                took, after = time.perf_counter() - began, machine(pid)
                if turn:  # the first one dials and warms up
                    seconds[way].append(took)
                    cores[way].append((after[0] - before[0], after[1] - before[1]))
    finally:
        await node.close()
    bare, own = (statistics.median(seconds[way]) for way in ("bare", "ours"))
    gives, takes = (sum(side) / ROUNDS for side in zip(*cores["ours"], strict=True))
    return {
        "mib": nbytes / (1 << 20),
        "ratio": bare / own,
        "bare_mib_per_s": nbytes / bare / (1 << 20),
        "mib_per_s": nbytes / own / (1 << 20),
        "giver_core_s_per_gib": gives * GIB / nbytes,
        "taker_core_s_per_gib": takes * GIB / nbytes,
        "bare_core_s_per_gib": sum(map(sum, cores["bare"])) / ROUNDS * GIB / nbytes,
    }


def machine(pid: int) -> tuple[float, float]:
    """Core-seconds so far of the donor and of this process, each with its daemon."""
    both = [(one, *children(one)) for one in (pid, os.getpid())]
    daemons = [[p for p in family if p in (pid, os.getpid()) or is_daemon(p)] for family in both]
    giver, taker = (sum(cpu_seconds(p) for p in family) for family in daemons)
    return giver, taker


def is_daemon(pid: int) -> bool:
    path = Path(f"/proc/{pid}/comm")
    return path.exists() and path.read_text().strip() == "p2pd"


# ---- from a donor that trains -------------------------------------------------------------------


def training(folder: Path, size: int, args: argparse.Namespace) -> dict[str, Any]:
    with Herd(folder, *overrides(size)) as herd:
        cores = sorted(os.sched_getaffinity(0))
        donor = herd.worker("a", checkpoint_s=1e6, slowdown=1.0)
        os.sched_setaffinity(donor.pid, cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        herd.wait(lambda: herd.steps("a") > 5, "steps")
        spans: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        given = 0
        station = Station.open(folder / "joiner", "joiner", PeerConfig(host="127.0.0.1"))
        try:
            for _ in range(args.windows):
                began = time.time()
                given += station.run(ask_for(station, herd, began + args.window))
                asked = time.time()
                time.sleep(asked - began)
                spans[True].append((began, asked))
                spans[False].append((asked, time.time()))
        finally:
            station.close()
            os.sched_setaffinity(0, cores)
        herd.poll()
        [started] = herd.of("a", "peer_started")
        stamps = [e["time"] for e in herd.of("a", "step")]
    alone, beside = (pace(stamps, spans[asks]) for asks in (False, True))
    return {
        "million": started["parameters"] / 1e6,
        "slower": 1 - beside / alone,
        "steps_per_s": alone,
        "mib_per_s": given / sum(e - b for b, e in spans[True]) / (1 << 20),
    }


async def ask_for(station: Station, herd: Herd, until: float) -> int:
    """One state after another until then; the bytes that came."""
    async with visiting(station, Invite.decode(herd.invite), "export") as link:
        run = herd.run.config
        builder = run.model.build("model", {})
        numel = sum(p.numel() for p in builder.build(run.seed).parameters())
        into = {name: torch.zeros(numel) for name in join_donor.VECTORS}
        into |= {"inner.step": torch.tensor(0.0)}
        wish = Wish(lambda: link.workers(("training",)), PATIENCE_S)
        given = 0
        while time.time() < until:
            for tensor in into.values():
                tensor.zero_()
            given += (await take_state(link.node, into, wish, lambda event: None)).nbytes
        return given


def pace(stamps: list[float], spans: list[tuple[float, float]]) -> float:
    """Steps per second, from the first to the last step of each span."""
    steps = seconds = 0.0
    for began, ended in spans:
        own = [stamp for stamp in stamps if began <= stamp <= ended]
        steps += len(own) - 1
        seconds += own[-1] - own[0]
    return steps / seconds


def overrides(size: int) -> tuple[str, ...]:
    width, layers = MODELS[size]
    return (
        "target.tokens=1000000000000",
        "target.minutes=1000",
        "outer=noloco",
        f"model.config.hidden_size={width}",
        f"model.config.intermediate_size={width * 8 // 3}",
        f"model.config.num_hidden_layers={layers}",
    )


# ---- from the command ---------------------------------------------------------------------------


def command(folder: Path, size: int) -> dict[str, Any]:
    with Herd(folder, *overrides(size)) as herd:
        herd.worker("a", checkpoint_s=1e6)
        herd.wait(lambda: herd.steps("a") > 5, "steps")
        out = folder / "peers" / "volunteer"
        settings = ("host=127.0.0.1", "device=cpu", "threads=1")
        words = [word for item in settings for word in ("--set", item)]
        line = [sys.executable, "-m", "peers.cli", "peer", herd.invite, "--out", str(out), *words]
        began = time.time()
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return parts(own_events(out, process), began)
        finally:
            process.terminate()
            process.wait(20.0)


def own_events(out: Path, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """What the volunteer has logged by its first meeting after an own step."""
    tail, events = Tail(out.parent.parent), list[dict[str, Any]]()
    others = ("a", "bootstrap")
    while not counted(events):
        if process.poll() is not None:
            raise RuntimeError(f"swarmnet peer ended with {process.returncode}")
        time.sleep(0.05)
        events += [event for event in tail.poll() if event["peer"] not in others]
    return events


def counted(events: list[dict[str, Any]]) -> float | None:
    """When the first meeting was applied that had an own step behind it."""
    first = next((e["time"] for e in events if e["event"] == "step"), None)
    met = [e["time"] for e in events if e["event"] == "exchange" and e["outcome"] == "ok"]
    return next((at for at in met if first is not None and at > first), None)


def parts(events: list[dict[str, Any]], began: float) -> dict[str, Any]:
    """Seconds of each part, in the order in which they follow each other."""
    entered = next(e for e in events if e["event"] == "run_entered")
    taken = next(e for e in events if e["event"] == "state_taken")
    stepped = next(e for e in events if e["event"] == "step")
    at = counted(events)
    assert at is not None
    known = ("node_s", "run_file_s", "build_s", "book_s")
    return {
        "total_s": at - began,
        "process_s": entered["time"] - began - sum(entered[name] for name in known),
        **{name: entered[name] for name in known},
        "state_s": taken["time"] - entered["time"],
        "state_mib": taken["bytes"] / (1 << 20),
        "first_step_s": stepped["time"] - taken["time"],
        "first_meeting_s": at - stepped["time"],
    }


if __name__ == "__main__":
    main()
