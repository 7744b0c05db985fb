"""The demo of a pipeline in small, as a user runs it: two stages, a kill and a join."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from swarmnet.events import Event
from tests.swarm.test_demo import KEYS

CLI = [sys.executable, "-W", "error::RuntimeWarning", "-m", "peers.cli"]
SMALL = {
    "pipeline.stages": 2,
    "pipeline.batch": 16,
    "batch.length": 32,
    "membership.renew_s": 1,
    "data.max_bytes": 200_000,
    "model.config.hidden_size": 32,
    "model.config.intermediate_size": 64,
    "model.config.num_hidden_layers": 2,
    "model.config.num_attention_heads": 2,
    "model.config.num_key_value_heads": 2,
}


def called(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=240, check=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()
    }


def test_two_stages_a_kill_and_a_join(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    demo = ["demo", "--pipeline", "--peers", "4", "--minutes", "0.2", "--json", "--out", str(out)]
    done = called(*demo, *settings)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    for key, inner in KEYS.items():
        assert key in summary
        assert inner is None or inner <= summary[key].keys()
    assert summary["peers"] == {"started": 5, "killed": 1, "joined": 1, "finished": 5}
    assert summary["loss"]["last"] < summary["loss"]["first"]
    assert summary["checkpoint"]["logits_difference"] <= 1e-5
    assert summary["disagreement"]["last"] == 0
    check_ledger(summary)
    lines = (out / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["event"] for line in lines} <= Event.types.keys()
    page = (out / "report.html").read_text()
    assert "peer-4" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    check_checkpoint(out, tmp_path / "again")


def check_ledger(summary: dict) -> None:
    """Every sample is in exactly one step of every stage."""
    ledger = summary["ledger"]
    assert ledger["begun"] == ledger["settled"] > 50
    assert (ledger["open"], ledger["lost"]) == (0, 0)
    for stage in summary["stages"]:
        assert stage["samples"] == ledger["begun"]
        assert (stage["duplicates"], stage["missing"]) == (0, 0)


def check_checkpoint(out: Path, again: Path) -> None:
    """``transformers`` loads it; what the peers left in their folders joins to the same one."""
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    ids = AutoTokenizer.from_pretrained(out / "model")("def ", return_tensors="pt").input_ids
    assert model(ids).logits.isfinite().all()
    folders = [f for f in sorted((out / "peers").glob("peer-*")) if (f / "checkpoint").exists()]
    words = [word for folder in folders for word in ("--from", str(folder))]
    done = called("export", *words, "--out", str(again))
    assert done.returncode == 0, done.stderr
    assert "2 stages joined" in done.stderr
    ours, theirs = weights(out / "model"), weights(again)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_without_stages_is_no_pipeline(tmp_path: Path) -> None:
    done = called("demo", "--pipeline", "--run", "demo", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "not a pipeline" in done.stderr
