"""Checkpoints of real processes: a lone one goes on bit by bit, a swarm survives a power cut."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil
import torch

from peers import bookmark, export
from peers.bookmark import Bookmark
from peers.keeper import FOLDER
from peers.nursery import INVITE, OUTPUT, Child
from swarmnet.train import checkpoint
from swarmnet.wire.invite import Invite, parse_address
from tests.swarm.herd import Herd
from tests.swarm.test_pipeline import pipeline

LONG = "target.minutes=1000000"
ENDLESS = "target.tokens=1000000000"


def cut_power(herd: Herd, *children: Child) -> None:
    """kill -9 for the processes and all that they started, at the same moment."""
    trees = [psutil.Process(child.pid) for child in children]
    doomed = [process for tree in trees for process in (tree, *tree.children(recursive=True))]
    for process in doomed:
        os.kill(process.pid, signal.SIGKILL)
    herd.wait(lambda: not any(child.running for child in children), "power cut")
    herd.poll()


def restart_bootstrap(herd: Herd) -> None:
    """In the same folder and on the same port, as an owner would: the invite stays what it was."""
    address = parse_address(Invite.decode(herd.invite).bootstrap[0])
    settings = herd.settings | {"port": int(address.value_for_protocol("tcp"))}
    path = herd.bootstrap.out / INVITE
    path.unlink()
    herd.bootstrap = herd.nursery.start("bootstrap", "bootstrap_child", herd.run.raw, settings)
    herd.wait(path.exists, "second bootstrap")
    assert path.read_text().strip() == herd.invite


def finished(herd: Herd, name: str) -> bool:
    """Whether it came to the end of the run, however often it was stopped before."""
    return any(event["reason"] == "finished" for event in herd.of(name, "peer_finished"))


def newest(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    found = checkpoint.read(folder / FOLDER)
    assert found is not None
    return found


def taken(herd: Herd, name: str, times: int) -> dict:
    herd.wait(lambda: len(herd.of(name, "state_taken")) >= times, f"state {times} of {name}")
    return herd.of(name, "state_taken")[times - 1]


def written(herd: Herd, name: str) -> list[dict]:
    return [event for event in herd.of(name, "checkpoint") if not event["error"]]


def test_a_lone_worker_killed_and_resumed_ends_bit_identical(tmp_path: Path) -> None:
    run = ("target.tokens=60000", LONG, "codec=int8", "outer=noloco")
    ends = {}
    for name, kills in (("stopped", 2), ("whole", 0)):
        with Herd(tmp_path / name, *run) as herd:
            key = herd.nursery.root / "a" / "identity.key"
            if name == "whole":
                key.parent.mkdir(parents=True)
                shutil.copy(tmp_path / "stopped" / "peers" / "a" / "identity.key", key)
            for kill in range(kills):
                child = herd.worker("a", checkpoint_s=0.3, slowdown=2.0)
                before = len(written(herd, "a"))
                herd.wait(lambda n=before: len(written(herd, "a")) > n, "checkpoint")
                if kill:
                    child.terminate()
                    assert child.join(10.0)
                else:
                    child.kill()
                    child.join(10.0)
            herd.worker("a", checkpoint_s=0.3, slowdown=1.0)
            herd.wait(lambda: finished(herd, "a"), "end of the run")
            sources = [event["source"] for event in herd.of("a", "state_taken")]
            assert sources == ["seed", *["checkpoint"] * kills]
        ends[name] = newest(herd.nursery.root / "a")
    (ours, facts), (theirs, others) = ends["stopped"], ends["whole"]
    assert facts["step"] == others["step"]
    assert facts["tokens"] == others["tokens"]
    for tensor in ("theta", "outer.phi", "outer.delta", "inner.exp_avg", "inner.exp_avg_sq"):
        assert torch.equal(ours[tensor], theirs[tensor]), tensor


def test_a_swarm_of_three_stopped_by_power_loss_continues_from_its_checkpoints(
    tmp_path: Path,
) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        workers = [herd.worker(name) for name in "abc"]
        herd.wait_met("a", "b", "c")
        herd.wait(lambda: all(len(written(herd, name)) >= 2 for name in "abc"), "checkpoints")
        cut_power(herd, *workers, herd.bootstrap)
        steps = {name: newest(herd.nursery.root / name)[1]["step"] for name in "abc"}
        merged = export.from_folders([herd.nursery.root / name for name in "abc"])
        assert len(merged.replicas) == 3
        restart_bootstrap(herd)
        for name in "abc":
            herd.worker(name)
        for name in "abc":
            state = taken(herd, name, 2)
            assert (state["source"], state["step"]) == ("checkpoint", steps[name])
        met = {name: herd.met(name) for name in "abc"}
        for name in "abc":
            herd.wait_met(name, times=met[name] + 2)


def test_a_pipeline_stopped_by_power_loss_knows_how_far_it_was(tmp_path: Path) -> None:
    """Its weights say it, also where the trainer that had read the text does not come back."""
    target = 50_000_000
    with pipeline(tmp_path, f"target.tokens={target}", LONG) as herd:
        everybody = [herd.stage("s0", 0), herd.stage("s1", 1), herd.trainer("t")]
        place = herd.nursery.root / "t" / bookmark.FILE
        herd.wait(lambda: place.exists() and read_mark(place).elapsed_s > 8, "a second bookmark")
        cut_power(herd, *everybody, herd.bootstrap)
        kept = [newest(herd.nursery.root / name)[1]["past"]["committed"] for name in ("s0", "s1")]
        mark = read_mark(place)
        restart_bootstrap(herd)
        herd.stage("s0", 0)
        herd.stage("s1", 1)
        herd.trainer("stranger")
        herd.wait(lambda: progress(herd, "stranger") * target >= max(kept), "floor")
        assert sum(event["tokens"] for event in herd.of("stranger", "trips")) < max(kept)
        herd.trainer("t")
        herd.wait(lambda: read_mark(place) != mark, "a later bookmark")
        later = read_mark(place)
        assert later.begun > mark.begun
        assert later.tokens >= mark.tokens
        assert later.elapsed_s > mark.elapsed_s


def read_mark(place: Path) -> Bookmark:
    return Bookmark.model_validate_json(place.read_bytes())


def progress(herd: Herd, trainer: str) -> float:
    """Of the whole run, as this trainer last said."""
    return max((float(event["progress"]) for event in herd.of(trainer, "trips")), default=0.0)


def test_the_only_other_peer_alive_is_not_healed_yet(tmp_path: Path) -> None:
    """After a power cut: old comes first, then one without a state, then the one that is ahead."""
    with Herd(tmp_path, ENDLESS) as herd:
        ahead = herd.worker("ahead")
        old = herd.worker("old")
        herd.wait(lambda: written(herd, "old"), "checkpoint")
        cut_power(herd, old)
        last = newest(herd.nursery.root / "old")[1]["elapsed_s"]
        at = herd.nursery.root / "ahead"
        herd.wait(
            lambda: (found := checkpoint.read(at / FOLDER)) and found[1]["elapsed_s"] > last + 6,
            "checkpoint that is far ahead",
        )
        cut_power(herd, ahead, herd.bootstrap)
        restart_bootstrap(herd)
        eager = {"stale_s": 1.0, "checkpoint_s": 1.0, "donor_s": 60.0}
        herd.worker("old", **eager)
        herd.worker("new", **eager)
        for name, times in (("old", 2), ("new", 1)):
            herd.wait(lambda n=name, t=times: len(herd.of(n, "peer_started")) >= t, "start")
        herd.wait(
            lambda: all("waiting for peers" in c.last_words() for c in herd.nursery.children[-2:]),
            "two that wait",
        )
        assert len(herd.of("old", "state_taken")) == 1
        assert not herd.of("new", "state_taken")
        herd.worker("ahead")
        assert taken(herd, "ahead", 2)["source"] == "checkpoint"
        first = taken(herd, "ahead", 2)["step"]
        for name, times in (("old", 2), ("new", 1)):
            state = taken(herd, name, times)
            assert state["source"] == "donor"
            assert state["step"] >= first


def test_a_folder_of_another_run_is_one_line_and_not_touched(tmp_path: Path) -> None:
    with Herd(tmp_path / "one", "target.tokens=5000") as herd:
        herd.worker("a")
        herd.wait_finished("a")
    with Herd(tmp_path / "two", "target.tokens=6000") as other:
        shutil.copytree(herd.nursery.root / "a" / FOLDER, other.nursery.root / "a" / FOLDER)
        theirs = sorted((other.nursery.root / "a" / FOLDER).iterdir())
        other.worker("a")
        other.wait_finished("a")
        assert taken(other, "a", 1)["source"] == "seed"
        said = (other.nursery.root / "a" / OUTPUT).read_text()
        assert said.count("another run") == 1
        assert all(path.exists() for path in theirs)
