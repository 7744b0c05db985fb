"""The links of a run, from its events: figures for people, in summary.json and in the report."""

from __future__ import annotations

import json

import pytest

from peers.pace import links
from peers.report import write_report
from peers.story import tell
from peers.summary import summarise
from swarmnet.events import ExchangeDone, PeerStarted
from tests.unit.synthetic import T0, FakeRun, fake_run, record

NEW = ("called", "answer_s", "start_s", "send_s", "receive_s", "payload_bytes")


@pytest.fixture(scope="module")
def slow_run():
    run = FakeRun(steps=200)
    run.slow = "worker-2"
    return run.run()


def test_a_run_under_load_blames_nobody():
    figures = summarise(fake_run())["links"]
    assert figures["verdicts"] == []
    assert figures["measured"] > 12
    for row in figures["peers"].values():
        assert 0.3 < row["sends"] < 3
        assert row["answer_s"] == 0.02


def test_a_slow_sender_is_named_in_summary_and_report(slow_run, tmp_path):
    summary = summarise(slow_run)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    (verdict,) = summary["links"]["verdicts"]
    assert (verdict["kind"], verdict["peer"]) == ("sender", "worker-2")
    assert summary["links"]["peers"]["worker-2"]["sends"] == pytest.approx(verdict["times"])
    write_report(tmp_path / "report.html", slow_run, summary)
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Links</h2>" in page
    assert verdict["said"] in page


def test_events_of_before_are_still_read(slow_run, tmp_path):
    old = [{key: line[key] for key in line if key not in NEW} for line in slow_run]
    summary = summarise(old)
    assert summary["links"]["measured"] == 0
    assert summary["links"]["verdicts"] == []
    assert summary["links"]["peers"]["worker-1"] == {
        "sends": None,
        "receives": None,
        "starts": None,
        "answer_s": None,
        "unanswered": 0,
    }
    write_report(tmp_path / "report.html", old, summary)
    assert "<h2>Links</h2>" not in (tmp_path / "report.html").read_text()


def calls(*outcomes):
    """Of one peer to another: ``ok``, or ``failed`` without an answer."""
    lines = [record(T0, "w1", PeerStarted("worker", "r", "f", "id-1"))]
    for number, outcome in enumerate(outcomes):
        answer_s = 0.1 if outcome == "ok" else 0.0
        event = ExchangeDone(
            "train", outcome, "id-2", number, called=outcome != "solo", answer_s=answer_s
        )
        lines.append(record(T0 + number, "w1", event))
    return links(tell([*lines, record(T0, "w2", PeerStarted("worker", "r", "f", "id-2"))]))


def test_a_peer_that_never_answers_is_silent_and_not_slow():
    figures = calls("ok", "failed", "failed", "failed")
    (verdict,) = figures["verdicts"]
    assert verdict["said"] == "w2 does not answer: 3 calls in a row"
    assert figures["peers"]["w2"]["unanswered"] == 3
    assert calls("failed", "failed", "failed", "ok")["verdicts"] == []


def test_a_failure_after_the_answer_and_one_that_was_called_are_no_silence():
    lines = [record(T0, "w1", PeerStarted("worker", "r", "f", "id-1"))]
    for number, (called, answer_s) in enumerate([(True, 0.1), (False, 0.0)] * 4):
        event = ExchangeDone("train", "failed", "id-2", number, called=called, answer_s=answer_s)
        lines.append(record(T0 + number, "w1", event))
    assert links(tell(lines))["verdicts"] == []
