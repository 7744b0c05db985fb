"""The figures of summary.json against a run whose answers are known."""

from __future__ import annotations

import json
import math
import random

import pytest

from peers.story import tell
from peers.summary import Extra, estimated_disagreement, exchange_cost, summarise
from swarmnet.events import Evaluated, ExchangeDone, PeerStarted, StepDone, ViewSeen
from tests.unit.synthetic import PAYLOAD_BYTES, SKIP_FIRST, T0, FakeRun, begin_at, fake_run, record

CONTRACT = {
    "seconds", "tokens", "peers", "loss", "eval", "exchanges", "bytes_sent", "stall_fraction",
    "exchange_cost", "disagreement",
}  # fmt: skip


@pytest.fixture(scope="module")
def events():
    return fake_run()


@pytest.fixture(scope="module")
def summary(events):
    return summarise(events, Extra(begin_at=begin_at(400)))


def test_holds_every_key_of_the_contract_as_json(summary):
    assert summary.keys() >= CONTRACT
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert "solo" not in summary
    assert "speedup" not in summary


def test_peers_are_counted_by_what_befell_them(summary):
    assert summary["peers"] == {"started": 4, "killed": 1, "joined": 1, "finished": 4}


def test_steps_tokens_and_seconds_come_from_step_events(events, summary):
    steps = [line for line in events if line["event"] == "step"]
    assert summary["tokens"] == 1024 * len(steps)
    assert summary["steps"] == 400
    assert summary["seconds"] == pytest.approx(events[-1]["time"] - events[0]["time"])
    rate = summary["steps_per_second"]
    assert rate * summary["training_seconds"] == pytest.approx(len(steps))


def test_each_worker_has_a_row_and_the_rows_add_up(summary):
    rows = summary["workers"]
    assert [row["name"] for row in rows] == [f"worker-{n}" for n in (1, 2, 3, 4, 5)]
    assert sum(row["tokens"] for row in rows) == summary["tokens"]
    assert sum(row["exchanges"] for row in rows) == 2 * summary["exchanges"]["ok"]
    assert all(row["exchanges"] - row["met_in_training"] in (3, 4) for row in rows[:2])
    assert sum(row["solo"] for row in rows) == summary["exchanges"]["solo"]
    assert rows[2]["steps"] < rows[0]["steps"] == 400
    assert all(0 < row["stall_fraction"] < 0.02 for row in rows)


def test_exchange_cost_is_that_of_workers_that_nobody_slowed():
    run = FakeRun(steps=120, cost=0.1)
    lines = run.run()
    slow = record(T0, "slow", PeerStarted("worker", "demo", "f", "id-slow", slowdown=10.0))
    lines += [slow, record(T0 + 9, "slow", StepDone(1, 2.0, 1e-3, 1, 0.1, 3.0, 0.0))]
    assert exchange_cost(tell(lines), begin_at(120)) == pytest.approx(0.1, abs=1e-6)
    assert summarise(lines)["workers"][0] == {
        "name": "slow",
        "slowdown": 10.0,
        "killed": False,
        "joined": False,
        "steps": 1,
        "tokens": 1,
        "exchanges": 0,
        "met_in_training": 0,
        "solo": 0,
        "failed": 0,
        "stall_fraction": 0.0,
    }


def test_order_of_the_events_does_not_matter(events, summary):
    shuffled = list(events)
    random.Random(1).shuffle(shuffled)
    assert summarise(shuffled, Extra(begin_at=begin_at(400))) == summary


def test_the_age_of_the_view_is_that_of_all_workers(events, summary):
    assert summary["view_age_s"] == {"median": None, "max": None}
    seen = [(1.0, 4.0), (2.0, 30.0), (5.0, 6.0)]
    lines = [
        record(T0 + 30, f"worker-{number + 1}", ViewSeen(3, *ages, reads=2))
        for number, ages in enumerate(seen)
    ]
    assert summarise(events + lines)["view_age_s"] == {"median": 2.0, "max": 30.0}


def test_a_meeting_counts_once_a_solo_window_and_a_failed_side_each(events, summary):
    exchanges = [line for line in events if line["event"] == "exchange"]
    sides = [line["outcome"] for line in exchanges]
    assert summary["exchanges"] == {
        "ok": sides.count("ok") // 2,
        "solo": sides.count("solo"),
        "failed": sides.count("failed"),
        "late": 0,
    }


@pytest.mark.parametrize(
    ("outcomes", "ok"), [(["ok", "late"], 1), (["ok", "pending"], 1), (["pending"], 0)]
)
def test_a_late_side_completes_its_meeting_and_a_pending_one_counts_nowhere(outcomes, ok):
    lines = [
        record(T0 + i, f"w{i}", ExchangeDone("train", outcome, "", 1))
        for i, outcome in enumerate(outcomes)
    ]
    counts = summarise(lines)["exchanges"]
    assert counts["ok"] == ok
    assert counts["solo"] == counts["failed"] == 0


def test_bytes_include_the_state_given_to_the_joiner(events, summary):
    sent = sum(line["bytes_sent"] for line in events if line["event"] == "exchange")
    assert summary["bytes_sent"] == sent + 2 * PAYLOAD_BYTES


def test_held_out_losses_of_replicas_and_of_nobody_else(events):
    lone = record(T0 + 500, "demo", Evaluated("solo-400", 9.0, 1))
    got = summarise([*events, lone])["eval"]
    replicas = [
        line["loss"]
        for line in events
        if line["event"] == "evaluated" and line["subject"] != "merged"
    ]
    assert got["merged"] == 1.897
    assert got["mean_of_peers"] == pytest.approx(sum(replicas) / 4)
    assert got["best_of_peers"] == min(replicas)


def test_stall_is_a_share_of_training_time(events, summary):
    steps = [line for line in events if line["event"] == "step"]
    share = sum(line["stall_s"] for line in steps) / sum(line["seconds"] for line in steps)
    assert summary["stall_fraction"] == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize("cost", [0.0, 0.03, 0.3])
def test_exchange_cost_recovers_the_slowdown(cost):
    story = tell(FakeRun(steps=120, cost=cost).run())
    assert exchange_cost(story, begin_at(120)) == pytest.approx(cost, abs=1e-6)


def test_exchange_cost_looks_only_at_windows_where_all_are_in_the_same_mode():
    def steps(peer, begin, quiet, busy):
        now, lines = begin, []
        for number in range(1, 61):
            now += quiet if number <= SKIP_FIRST else busy
            lines.append(record(now, peer, StepDone(number, 2.0, 1e-3, 1, number / 60, 0.1, 0.0)))
        return lines

    story = tell(steps("a", T0, 0.2, 0.25) + steps("b", T0 + 0.05, 0.05, 0.0625))
    assert exchange_cost(story, begin_at(60)) is None
    story = tell(steps("a", T0, 0.2, 0.25) + steps("b", T0 + 0.05, 0.19, 0.2375))
    assert exchange_cost(story, begin_at(60)) == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize("steps", [0, 6, 7, 399])
def test_exchange_cost_is_null_without_a_window(events, steps):
    share = (steps + 0.5) / 400 if steps else 0.0
    assert summarise(events, Extra(begin_at=share))["exchange_cost"] is None


def test_disagreement_of_random_pairs_is_estimated_without_bias():
    rng = random.Random(0)
    replicas = [[rng.gauss(0, 0.01) for _ in range(200)] for _ in range(5)]
    centre = [sum(column) / 5 for column in zip(*replicas, strict=True)]
    square = sum((w - m) ** 2 for row in replicas for w, m in zip(row, centre, strict=True))
    distances = [
        math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 200)
        for i, a in enumerate(replicas)
        for b in replicas[:i]
    ]
    assert estimated_disagreement(distances, 5) == pytest.approx(math.sqrt(square / 1000))


def test_disagreement_takes_first_and_last_training_meetings_or_the_exact_end(events, summary):
    meetings = [
        line["distance"]
        for line in events
        if line["event"] == "exchange" and line["outcome"] == "ok" and line["phase"] == "train"
    ]
    assert summary["disagreement"]["first"] == estimated_disagreement(meetings[:4], 4)
    assert summary["disagreement"]["last"] == estimated_disagreement(meetings[-4:], 4)
    assert summarise(events, Extra(disagreement=3e-4))["disagreement"]["last"] == 3e-4


def test_given_figures_are_passed_on():
    solo = {"T": {"steps": 400, "loss": 2.05}}
    got = summarise(fake_run(steps=60), Extra(solo=solo, speedup=">=1.3"))
    assert got["solo"] == solo
    assert got["speedup"] == ">=1.3"


def test_nothing_at_all_gives_zeros_and_nulls():
    got = summarise([])
    assert got["tokens"] == 0
    assert got["peers"] == {"started": 0, "killed": 0, "joined": 0, "finished": 0}
    assert got["loss"] == {"first": None, "last": None}
    assert got["stall_fraction"] is None


def test_a_diverged_loss_is_null_and_a_bootstrap_is_no_worker():
    lines = [
        record(T0, "boot", PeerStarted("bootstrap", "demo", "f", "id")),
        record(T0 + 1, "w", StepDone(1, math.nan, 1e-3, 8, 0.1, 0.5, 0.0)),
    ]
    got = summarise(lines)
    assert got["loss"] == {"first": None, "last": None}
    assert got["peers"]["started"] == 1
    json.dumps(got, allow_nan=False)
