"""Real workers that are told to leave, or to rest: what others get of them, and how soon."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from tests.swarm.herd import Herd, kept_back

BF16 = 2.0**-8
"""What the codec may lose of a value, relative to it."""
ENDLESS = ("target.tokens=1000000000", "cadence.name=every_h", "cadence.h=40")


@pytest.mark.parametrize("rule", ["noloco", "average"])
def test_a_leaver_hands_its_window_to_a_neighbour_and_the_others_go_on(
    tmp_path: Path, rule: str
) -> None:
    with Herd(tmp_path, *ENDLESS, f"outer.name={rule}") as herd:
        workers = {name: herd.worker(name) for name in "abc"}
        herd.wait_met(*workers, times=2)
        told = time.time()
        workers["b"].terminate()
        herd.wait(lambda: not workers["b"].running, "exit")
        assert workers["b"].exit_code == 4
        herd.poll()
        [said] = herd.of("b", "farewell")
        [last] = herd.of("b", "peer_finished")
        assert said["outcome"] == "given"
        assert said["bytes"] > 0
        assert last["time"] - told < 5.0
        names = {herd.of(name, "peer_started")[0]["peer_id"]: name for name in "ac"}
        heir = names[said["to"]]

        def inherited() -> list[float]:
            meetings = herd.of(heir, "exchange")
            return [e["distance"] for e in meetings if e["outcome"] == "inherited"]

        herd.wait(inherited, "inheritance")
        assert inherited() == [said["distance"]]
        assert said["distance"] > 0
        if rule == "noloco":
            assert kept_back(workers["b"].out) < BF16 * said["distance"]
        met = {name: herd.met(name) for name in "ac"}
        herd.wait(lambda: all(herd.met(n) > met[n] for n in "ac"), "meetings of the others")


def press(herd: Herd, name: str, order: str) -> None:
    """A button of the peer's own page."""
    url = herd.of(name, "page_opened")[0]["url"] + order
    request = urllib.request.Request(url, headers={"X-Swarmnet": "1"}, method="POST")
    with urllib.request.urlopen(request, timeout=5.0) as answer:
        assert answer.status == 204


def test_a_worker_rests_and_goes_on_by_signals_and_by_its_page_and_leaves_from_its_rest(
    tmp_path: Path,
) -> None:
    with Herd(tmp_path, *ENDLESS) as herd:
        workers = {name: herd.worker(name, status="127.0.0.1:0") for name in "ab"}
        herd.wait_met(*workers, times=1)
        pid = workers["a"].pid
        os.kill(pid, signal.SIGUSR1)

        def rests() -> bool:
            return time.time() - herd.of("a", "step")[-1]["time"] > 1.0

        herd.wait(rests, "rest")
        steps = herd.steps("b")
        herd.wait(lambda: herd.steps("b") > steps + 20, "steps of the other")
        steps = herd.steps("a")
        os.kill(pid, signal.SIGUSR2)
        herd.wait(lambda: herd.steps("a") > steps + 5, "steps after the rest")
        press(herd, "a", "pause")
        herd.wait(rests, "second rest")
        steps = herd.steps("a")
        press(herd, "a", "resume")
        herd.wait(lambda: herd.steps("a") > steps + 5, "steps after the second rest")
        press(herd, "a", "pause")
        herd.wait(rests, "third rest")
        press(herd, "a", "leave")
        herd.wait(lambda: not workers["a"].running, "exit")
        assert workers["a"].exit_code == 4
        herd.poll()
        assert herd.of("a", "farewell")[0]["outcome"] in ("given", "nothing")
        assert herd.of("a", "peer_finished")[0]["reason"] == "left: the status page"


def test_a_notice_is_an_order_to_leave_and_a_signal_while_joining_ends_at_once(
    tmp_path: Path,
) -> None:
    with Herd(tmp_path, *ENDLESS) as herd:
        path = tmp_path / "leave"
        notice = {"name": "file", "path": str(path)}
        workers = {name: herd.worker(name, notice=notice, notice_s=0.1) for name in "a"}
        workers["b"] = herd.worker("b")
        herd.wait(lambda: herd.of("b", "peer_started"), "start")
        workers["b"].terminate()
        herd.wait(lambda: not workers["b"].running, "exit while joining")
        assert workers["b"].exit_code == 4
        herd.wait(lambda: herd.of("a", "step"), "steps")
        path.touch()
        herd.wait(lambda: not workers["a"].running, "exit")
        assert workers["a"].exit_code == 4
        herd.poll()
        assert herd.of("a", "peer_finished")[0]["reason"] == f"left: notice: {path} exists"
