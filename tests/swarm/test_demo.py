"""The demo in small, as a user runs it: what it prints and what it leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarmnet.events import Event
from tests.swarm.herd import RUN

DEMO = [sys.executable, "-W", "error::RuntimeWarning", "-m", "peers.cli", "demo", "--run", str(RUN)]
KEYS = {
    "seconds": None,
    "tokens": None,
    "peers": {"started", "killed", "joined", "finished"},
    "loss": {"first", "last"},
    "eval": {"merged", "mean_of_peers"},
    "exchanges": {"ok", "solo", "failed"},
    "bytes_sent": None,
    "stall_fraction": None,
    "exchange_cost": None,
    "disagreement": {"first", "last"},
}
ENDLESS = "target.tokens=1000000000"


def test_four_workers_a_kill_and_a_join(tmp_path: Path) -> None:
    out = tmp_path / "run"
    # Long enough for the joiner to be seen: its record is read a renewal after it was written.
    command = [*DEMO, "--json", "--out", str(out), "--set", ENDLESS]
    command += ["--minutes", "0.4", "--slow", "all:6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    for key, inner in KEYS.items():
        assert key in summary
        assert inner is None or inner <= summary[key].keys()
    assert summary["peers"] == {"started": 4, "killed": 1, "joined": 1, "finished": 4}
    assert summary["loss"]["last"] < summary["loss"]["first"]
    assert abs(summary["eval"]["merged"] - summary["eval"]["mean_of_peers"]) < 0.02
    assert summary["exchanges"]["ok"] > 50
    assert summary["disagreement"]["last"] < 1e-3
    lines = (out / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["event"] for line in lines} <= Event.types.keys()
    page = (out / "report.html").read_text()
    assert "worker-4" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (out / "model" / "model.safetensors").exists()


@pytest.mark.long
def test_a_worker_alone_trains_for_comparison(tmp_path: Path) -> None:
    command = [*DEMO, "--solo", "--peers", "2", "--no-churn", "--json", "--out", str(tmp_path)]
    command += ["--set", ENDLESS, "--minutes", "0.2", "--slow", "all:6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["solo"].keys() == {"T", "1.3T"}
    assert summary["speedup"] is not None


def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    command = [*DEMO, "--peers", "2", "--out", str(tmp_path / "run")]
    command += ["--set", ENDLESS]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    marker = tmp_path / "run" / "peers" / "worker-1" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (marker.exists() and '"step"' in marker.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 4
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
    assert left.stdout == ""
    assert '"peer_finished"' in marker.read_text()


def test_a_run_folder_is_not_used_twice(tmp_path: Path) -> None:
    (tmp_path / "peers").mkdir()
    done = subprocess.run([*DEMO, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "holds a run already" in done.stderr
