"""Pipelines of real processes over real p2pd: killed, restarted, joined, stopped, refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from peers.order import give_order
from swarmnet.config import PeerConfig
from swarmnet.train import checkpoint
from swarmnet.wire.invite import Invite
from tests.swarm.herd import Herd
from tests.swarm.test_workers import daemon_of

RUN = Path(__file__).with_name("tiny_pipeline.toml")
SERVE_S = 2.0
SLOW_COPY = 2e-5
"""A share of the cores with which a donor needs several steps for one copy."""
LEAVE_S = 20.0
"""A peer that is told to leave has gone by then, on a machine that does other things too."""


@contextmanager
def pipeline(folder: Path, *overrides: str) -> Iterator[Herd]:
    """A run of two stages whose peers leave soon after its end."""
    herd = Herd(folder, *overrides, run=RUN)
    herd.settings["serve_s"] = SERVE_S
    with herd:
        yield herd


def wait_steps(herd: Herd, *peers: str, more: int = 3) -> None:
    """Until each of them has taken so many steps more."""
    before = {peer: len(herd.of(peer, "stage_step")) for peer in peers}
    herd.wait(
        lambda: all(len(herd.of(p, "stage_step")) >= n + more for p, n in before.items()),
        f"{more} more steps of {peers}",
    )


def end(herd: Herd) -> None:
    """The owner ends the run."""
    settings = PeerConfig(host="127.0.0.1")
    give_order(herd.bootstrap.out, settings, Invite.decode(herd.invite), "end")


def ledger(herd: Herd, trainer: str) -> dict[str, Any]:
    return herd.of(trainer, "trips")[-1]


def check_settled(herd: Herd, trainer: str) -> None:
    """Every sample that was begun is in a step of every stage."""
    last = ledger(herd, trainer)
    assert last["begun"] > 0
    assert (last["settled"], last["open"], last["whole"]) == (last["begun"], 0, 0)


def check_steps(herd: Herd, *stages: list[str]) -> None:
    """Each stage's peers together claimed no sample twice: their own shares sum to their steps."""
    for peers in stages:
        steps: dict[str, dict[str, Any]] = {}
        own: dict[str, int] = {}
        for peer in peers:
            for event in herd.of(peer, "stage_step"):
                steps[event["lineage"]] = event
                own[event["lineage"]] = own.get(event["lineage"], 0) + event["own"]
        assert all(own[name] <= event["samples"] for name, event in steps.items())


def test_two_stages_of_one_peer_survive_the_death_and_return_of_each(tmp_path: Path) -> None:
    with pipeline(tmp_path) as herd:
        peers = {name: herd.stage(name, k) for k, name in enumerate(("s0", "s1"))}
        trainer = herd.trainer("t")
        wait_steps(herd, "s0", "s1")
        for stage, name in enumerate(("s0", "s1")):
            written = len(herd.of(name, "checkpoint"))
            herd.wait(lambda: len(herd.of(name, "checkpoint")) > written, "checkpoint")  # noqa: B023
            peers[name].kill()
            peers[name].join(5.0)
            if stage == 1:
                check_that_a_joiner_without_a_donor_refuses(herd)
            herd.stage(name, stage)
            herd.wait(lambda: len(herd.of(name, "state_taken")) == 2, f"return of {name}")  # noqa: B023
            assert herd.of(name, "state_taken")[1]["source"] == "checkpoint"
            wait_steps(herd, "s0", "s1")
        end(herd)
        herd.wait_finished("t", "s0", "s1")
        assert trainer.join(LEAVE_S)
        assert trainer.exit_code == 0
        herd.poll()
        check_settled(herd, "t")


def check_that_a_joiner_without_a_donor_refuses(herd: Herd) -> None:
    joiner = herd.stage("stranger", 1, donor_s=1.0)
    herd.wait(lambda: not joiner.running, "refusal")
    assert joiner.exit_code == 3
    assert "stage 1 was trained and nobody gives its state" in joiner.last_words()


def test_mates_go_on_when_one_is_killed_leaves_or_loses_its_daemon(tmp_path: Path) -> None:
    with pipeline(tmp_path) as herd:
        herd.stage("s0a", 0)
        killed = herd.stage("s1a", 1)
        herd.stage("s1b", 1)
        trainer = herd.trainer("t")
        wait_steps(herd, "s0a", "s1a", "s1b")
        auto = herd.nursery.start("auto", "auto_child", herd.invite, herd.settings)
        herd.wait(lambda: herd.of("auto", "stage_taken"), "stage of the newcomer")
        stages: list[list[str]] = [["s0a"], ["s1a", "s1b"]]
        stages[herd.of("auto", "stage_taken")[0]["stage"]].append("auto")
        assert herd.of("auto", "state_taken")[0]["source"] == "donor"
        wait_steps(herd, "auto", "s1b")
        killed.kill()
        wait_steps(herd, "auto", "s1b", "s0a")
        auto.terminate()
        began = time.monotonic()
        assert auto.join(LEAVE_S), f"still there after {time.monotonic() - began:.1f} s"
        assert auto.exit_code == 4
        wait_steps(herd, "s0a", "s1b")
        s1b = next(child for child in herd.nursery.children if child.name == "s1b")
        os.kill(daemon_of(s1b.pid), signal.SIGKILL)
        herd.wait(lambda: herd.of("s1b", "daemon_restarted"), "new daemon")
        wait_steps(herd, "s0a", "s1b")
        end(herd)
        herd.wait_finished("t", "s0a", "s1b")
        assert trainer.join(LEAVE_S)
        assert trainer.exit_code == 0
        herd.poll()
        check_settled(herd, "t")
        check_steps(herd, *stages)


def test_a_joiner_that_copies_for_longer_than_a_step_takes_the_steps_of_its_mates(
    tmp_path: Path,
) -> None:
    with pipeline(tmp_path) as herd:
        herd.stage("s0", 0)
        herd.stage("s1a", 1, give_share=SLOW_COPY, checkpoint_s=0.1)
        herd.trainer("t")
        wait_steps(herd, "s1a")
        herd.stage("s1b", 1, checkpoint_s=0.1)
        wait_steps(herd, "s1b", more=5)
        herd.wait(lambda: alike(herd, "s1a", "s1b"), "checkpoints of the same step")
        check_steps(herd, ["s0"], ["s1a", "s1b"])
        assert sum(not given["step"] for given in herd.of("s1a", "state_served")) == 1
        assert sum(taken["followed"] for taken in herd.of("s1b", "state_taken")) > 0


def test_delayed_steps_by_way_of_the_hub_leave_mates_with_the_same_bits(tmp_path: Path) -> None:
    with pipeline(tmp_path, "pipeline.handover=hub", "pipeline.delayed=true") as herd:
        for name, stage in {"s0": 0, "s1a": 1, "s1b": 1}.items():
            herd.stage(name, stage, checkpoint_s=0.1)
        herd.trainer("t")
        wait_steps(herd, "s0", "s1a", "s1b")
        herd.wait(lambda: alike(herd, "s1a", "s1b"), "checkpoints of the same step")
        end(herd)
        herd.wait_finished("t")
        herd.poll()
        check_settled(herd, "t")


def alike(herd: Herd, *peers: str) -> bool:
    """Whether their last checkpoints are of the same step; they have the same bits then."""
    found = [checkpoint.read(herd.nursery.root / name / "checkpoint", {}) for name in peers]
    kept = [one for one in found if one is not None]
    if len(kept) < len(peers):
        return False
    (one, facts), (other, their_facts) = kept
    if facts["past"]["lineage"] != their_facts["past"]["lineage"]:
        return False
    assert all(torch.equal(one[name], other[name]) for name in one)
    return True


def test_stages_that_the_run_has_not_are_refused_in_one_line(tmp_path: Path) -> None:
    with pipeline(tmp_path) as herd:
        lost = herd.stage("lost", 9)
        herd.wait(lambda: not lost.running, "refusal")
        assert lost.exit_code == 2
        assert lost.last_words() == "ConfigError: --stage 9: the run has stages 0 to 1"
        whole = herd.worker("whole")
        herd.wait(lambda: not whole.running, "refusal")
        assert whole.exit_code == 2
        assert "cut into stages" in whole.last_words()
