"""The lab on real processes: each kind of fault is done, survived, undone and written down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peers.storm.lab import WEATHER, Lab
from peers.storm.plan import StormConfig, parse
from swarmnet.events import FaultInjected
from tests.swarm.herd import RUN, Herd

ENDLESS = "target.tokens=1000000000"


class Tempest:
    """A herd of ``abc``-like workers under a storm whose faults last until ``heal``."""

    def __init__(self, herd: Herd, storm: str, seed: int = 1) -> None:
        self.done: list[FaultInjected] = []
        self.herd = herd
        config: StormConfig = parse(storm.encode(), "test")
        herd.settings["weather"] = str(herd.folder / WEATHER)
        self.lab = Lab(config, seed, herd.folder, self.fork, self.done.append)
        for number in range(4):
            self.fork(f"worker-{number}")
        herd.wait_met(*self.names)

    @property
    def names(self) -> list[str]:
        return sorted(self.lab.hands.children)

    def fork(self, name: str) -> Any:
        child = self.herd.worker(name)
        self.lab.enter(child)
        return child

    def until(self, kind: str) -> list[str]:
        """Tend until a fault of ``kind`` has begun; whom it hit."""
        for event in self.herd.events:
            self.lab.hear(event)

        def begun() -> list[str]:
            self.lab.tend()
            return [f.subject for f in self.done if f.kind == kind and not f.over]

        self.herd.wait(begun, f"a {kind}")
        return begun()

    def meet_again(self, *names: str, times: int = 3) -> None:
        for name in names:
            self.herd.wait_met(name, times=self.herd.met(name) + times)


def once(kind: str, *more: str) -> str:
    """One fault of a kind, half a second from now, that lasts until it is healed."""
    return "\n".join([f"[{kind}]", "every_s = 0.5", "law = 'regular'", "for_s = 3600", *more])


def test_a_wall_keeps_the_two_sides_apart_until_it_falls(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        tempest = Tempest(herd, once("partition", "share = 0.5"))
        far = tempest.until("partition")
        assert len(far) == 2
        ids = {e["peer"]: e["peer_id"] for e in herd.events if e["event"] == "peer_started"}
        near = [name for name in tempest.names if name not in far]
        # What was agreed before the wall was seen may still end.
        tempest.meet_again(*near, *far)
        marks = {name: len(herd.of(name, "exchange")) for name in tempest.names}
        tempest.meet_again(*near, *far)
        for side in (near, far):
            for name in side:
                met = [e for e in herd.of(name, "exchange")[marks[name] :] if e["outcome"] == "ok"]
                assert {e["partner"] for e in met} <= {ids[other] for other in side}
        tempest.lab.heal()
        herd.wait(lambda: crossed(herd, near, {ids[name] for name in far}, marks), "a crossing")


def crossed(herd: Herd, near: list[str], far: set[str], marks: dict[str, int]) -> bool:
    lines = [e for name in near for e in herd.of(name, "exchange")[marks[name] :]]
    return any(e["outcome"] == "ok" and e["partner"] in far for e in lines)


def test_the_killed_return_with_their_checkpoint_and_the_frozen_go_on(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        tempest = Tempest(herd, once("kill") + "\n" + once("freeze"))
        herd.wait(lambda: all(herd.of(name, "checkpoint") for name in tempest.names), "checkpoints")
        [killed], [frozen] = tempest.until("kill")[:1], tempest.until("freeze")[:1]
        tempest.meet_again(*set(tempest.names) - {killed, frozen})
        tempest.lab.heal()
        herd.wait(lambda: len(herd.of(killed, "state_taken")) == 2, "a comeback")
        assert herd.of(killed, "state_taken")[1]["source"] == "checkpoint"
        tempest.meet_again(killed, frozen)
        ends = {(f.kind, f.subject, f.successor) for f in tempest.done if f.over}
        assert ("kill", killed, killed) in ends


def test_a_wrong_clock_a_slow_line_and_few_files_stop_nobody(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        kinds = {"clock_jump": ("by_s = 600",), "slow_link": ("rate = 400_000",), "fd_limit": ()}
        storm = "\n".join(once(kind, *more) for kind, more in kinds.items())
        tempest = Tempest(herd, storm)
        hit = {kind: tempest.until(kind)[0] for kind in kinds}
        tempest.meet_again(hit["clock_jump"], hit["slow_link"])
        steps = herd.steps(hit["fd_limit"])
        herd.wait(lambda: herd.steps(hit["fd_limit"]) > steps + 20, "steps")
        tempest.lab.heal()
        tempest.meet_again(*tempest.names)


def test_a_full_disk_costs_lines_and_checkpoints_and_no_training(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        tempest = Tempest(herd, once("disk_full"))
        [name] = tempest.until("disk_full")[:1]
        others = sorted(set(tempest.names) - {f.subject for f in tempest.done})
        before = herd.of(name, "step")[-1]["step"]
        tempest.meet_again(*others, times=10)
        tempest.lab.heal()
        herd.wait(lambda: herd.of(name, "step")[-1]["step"] > before + 20, "steps in the log again")
        logged, taken = herd.steps(name), herd.of(name, "step")[-1]["step"]
        assert logged < taken, "the steps of that time are not in the log"
        written = len(herd.of(name, "checkpoint"))
        herd.wait(
            lambda: any(not e["error"] for e in herd.of(name, "checkpoint")[written:]),
            "a checkpoint after it",
        )


@pytest.mark.long
def test_the_demo_lives_through_kills_and_joins(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "peers.cli", "demo", "--run", str(RUN), "--peers", "4"]
    command += ["--kill-every", "4", "--join-every", "5", "--minutes", "0.4", "--json"]
    command += ["--slow", "all:6"]
    command += ["--set", ENDLESS, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["peers"]["killed"] == summary["faults"]["kill"] >= 2
    assert summary["peers"]["joined"] == summary["faults"]["join"] >= 2
    assert summary["participation"]["alive"] > 0
    assert summary["eval"]["merged"] < 5
    lines = [json.loads(line) for line in (out / "faults.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"kill", "join"}
    assert '<script type="application/json">' in (out / "report.html").read_text()
