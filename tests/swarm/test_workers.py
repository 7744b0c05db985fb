"""Whole workers as real processes over real p2pd: killed, frozen, stopped, resumed, commanded."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from peers import export
from peers.order import give_order
from peers.roles.worker import work
from peers.station import Station
from swarmnet.config import PeerConfig, RunFile
from swarmnet.errors import RunMismatchError
from swarmnet.net.addressbook import FILE as ADDRESSES
from swarmnet.wire.invite import Invite
from tests.swarm.herd import RUN, Herd

ENDLESS = "target.tokens=1000000000"


def daemon_of(pid: int) -> int:
    """The p2pd that the process ``pid`` started."""
    found = subprocess.run(["pgrep", "-P", str(pid), "p2pd"], capture_output=True, text=True)
    return int(found.stdout.split()[0])


def test_an_odd_swarm_survives_kill_9_takes_a_joiner_and_agrees_at_the_end(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        victim = herd.worker("a")
        for name in "bc":
            herd.worker(name)
        herd.wait_met("a", "b", "c")
        victim.kill()
        before = {name: herd.steps(name) for name in "bc"}
        herd.worker("d")
        herd.wait_met("d", times=2)
        give_order(
            herd.bootstrap.out, PeerConfig(host="127.0.0.1"), Invite.decode(herd.invite), "end"
        )
        herd.wait_finished("b", "c", "d")
        assert all(herd.steps(name) > before[name] for name in "bc")
        [joined] = herd.of("d", "state_taken")
        assert joined["source"] == "donor"
        assert joined["step"] > 0
        station = Station.open(tmp_path / "export", "export", PeerConfig(host="127.0.0.1"))
        try:
            merged = export.from_swarm(station, Invite.decode(herd.invite))
        finally:
            station.close()
    assert len(merged.replicas) == 3
    assert merged.disagreement < 1e-3
    check_export(merged, tmp_path / "model")


def check_export(merged, folder: Path) -> None:
    """``AutoModelForCausalLM`` loads it and computes what the merged weights compute."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from swarmnet.model import logits
    from swarmnet.train.flat import flatten_parameters

    merged.save({}, folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    ours = merged.run.config.model.build("model", {}).build(0)
    with torch.no_grad():
        flatten_parameters(ours).copy_(merged.theta)
        ids = torch.arange(24)[None]
        assert torch.equal(logits(ours.eval(), ids), logits(loaded.eval(), ids))
    text = "def f(x):\n    return x\n"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_sigterm_leaves_within_five_seconds_and_the_same_folder_continues(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        herd.worker("a")
        first = herd.worker("b")
        herd.wait_met("a", "b")
        first.terminate()
        began = time.monotonic()
        assert first.join(5.0), f"still there after {time.monotonic() - began:.1f} s"
        assert first.exit_code == 4
        herd.poll()
        [finished] = herd.of("b", "peer_finished")
        assert finished["reason"] == "left: SIGTERM"
        herd.worker("b")
        herd.wait(lambda: len(herd.of("b", "state_taken")) == 2, "second start")
        again = herd.of("b", "state_taken")[1]
        last = herd.of("b", "step")[finished["steps"] - 1]
        assert (again["source"], again["step"]) == ("checkpoint", last["step"])
        met = herd.met("b")
        herd.wait_met("b", times=met + 2)


def test_a_killed_daemon_is_replaced_and_a_frozen_partner_stalls_nobody(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        workers = {name: herd.worker(name) for name in "abc"}
        herd.wait_met("a", "b", "c")
        os.kill(daemon_of(workers["a"].pid), signal.SIGKILL)
        herd.wait(lambda: herd.of("a", "daemon_restarted"), "new daemon")
        assert herd.of("a", "daemon_restarted")[0]["seconds"] < 3
        herd.wait_met("a", times=herd.met("a") + 2)
        os.kill(workers["b"].pid, signal.SIGSTOP)
        try:
            steps, met = herd.steps("a"), herd.met("a")
            herd.wait(lambda: herd.steps("a") >= steps + 50, "steps beside a frozen peer")
            herd.wait_met("a", times=met + 3)
        finally:
            os.kill(workers["b"].pid, signal.SIGCONT)
        herd.wait_met("b", times=herd.met("b") + 2)
        during = [e["seconds"] for e in herd.of("a", "step")[steps:]]
        assert max(during) < 2.0


def test_the_owner_pauses_resumes_and_ends_the_run(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        for name in "ab":
            herd.worker(name)
        herd.wait_met("a", "b")
        invite, settings = Invite.decode(herd.invite), PeerConfig(host="127.0.0.1")
        assert give_order(herd.bootstrap.out, settings, invite, "pause") == 2
        herd.wait(lambda: stands_still(herd), "pause")
        steps = herd.steps("a")
        give_order(herd.bootstrap.out, settings, invite, "run")
        herd.wait(lambda: herd.steps("a") > steps + 5, "steps after the pause")
        give_order(herd.bootstrap.out, settings, invite, "end")
        herd.wait_finished("a", "b")
        assert (tmp_path / "peers" / "a" / "model" / "config.json").exists()


def stands_still(herd: Herd) -> bool:
    """No new step for a whole second."""
    herd.poll()
    last = max(e["time"] for e in herd.events if e["event"] == "step")
    return time.time() - last > 1.0


def test_nobody_else_is_no_obstacle(tmp_path: Path) -> None:
    with Herd(tmp_path, "target.tokens=5000", "outer.name=noloco", "reduce=mean") as herd:
        herd.worker("a")
        herd.wait_finished("a")
        outcomes = {e["outcome"] for e in herd.of("a", "exchange")}
        assert outcomes == {"solo"}


def test_a_worker_without_a_bootstrap_says_so(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        herd.bootstrap.kill()
        herd.bootstrap.join(5.0)
        lost = herd.worker("a")
        herd.wait(lambda: not lost.running, "exit")
        assert lost.exit_code == 3
        assert "no bootstrap answers" in lost.last_words()


def test_another_run_file_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    with Herd(tmp_path) as herd:
        other = RunFile.load(RUN, ["batch.length=16"])
        station = Station.open(tmp_path / "stranger", "stranger", PeerConfig(host="127.0.0.1"))
        try:
            with pytest.raises(RunMismatchError, match=r"batch\.length: 16 -> 32"):
                work(station, Invite.decode(herd.invite), other.raw)
        finally:
            station.close()


def test_a_worker_comes_back_when_every_bootstrap_is_gone(tmp_path: Path) -> None:
    with Herd(tmp_path, ENDLESS) as herd:
        victim = herd.worker("a")
        herd.worker("b")
        herd.wait_met("a", "b")
        [other] = {event["peer_id"] for event in herd.of("b", "peer_started")}
        book = victim.out / ADDRESSES
        herd.wait(lambda: book.exists() and other in book.read_text(), "the other in the book")
        victim.kill()
        herd.bootstrap.kill()
        before = herd.met("a")
        herd.worker("a")
        herd.wait(lambda: herd.met("a") >= before + 3, "meetings after the restart")


def test_peers_that_only_the_bootstrap_knows_meet_on_all_interfaces(tmp_path: Path) -> None:
    """Loopback hides it: elsewhere the daemon's own routing does not find such a peer."""
    with Herd(tmp_path, ENDLESS, host="0.0.0.0") as herd:
        for name in "ab":
            herd.worker(name)
        herd.wait_met("a", "b")
