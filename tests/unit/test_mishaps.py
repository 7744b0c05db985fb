"""Every fault has its words, and the replay shows each of them."""

from __future__ import annotations

import json
import re

from peers.mishaps import NOUNS, WORDS, counted, happened
from peers.report.page import page
from peers.storm.plan import KINDS
from peers.story import tell
from peers.summary import summarise
from swarmnet.events import FaultInjected
from tests.unit.synthetic import T0, fake_run, record


def fault(at, kind, subject="worker-1", **more):
    return record(T0 + at, "demo", FaultInjected(kind, subject, **more))


def replayed(events):
    """What the script of the report is given."""
    document = page(tell(events), summarise(events))
    found = re.search(r'<script type="application/json">(.*?)</script>', document)
    return json.loads(found[1]), document


def test_every_kind_has_its_words():
    assert WORDS.keys() == set(KINDS)
    assert NOUNS.keys() == {*KINDS, "returned"}
    assert happened(fault(1, "kill")) == "was killed"
    assert happened(fault(1, "kill", over=True, successor="worker-1")) == "is back"
    assert happened(fault(1, "kill", over=True, successor="worker-9")) == "is replaced by worker-9"
    assert happened(fault(1, "earthquake")) == "earthquake"


def test_counts_are_one_phrase():
    assert counted({"kill": 3, "freeze": 1, "returned": 3}) == "3 kills, 1 freeze and 3 comebacks"
    assert counted({"join": 1}) == "1 newcomer"
    assert counted({}) == ""


def test_a_run_that_nobody_hurt_has_no_replay():
    events = [line for line in fake_run(steps=60) if line["event"] != "fault"]
    assert "<script" not in page(tell(events), summarise(events))


def test_the_replay_knows_who_is_what_and_when():
    events = fake_run(steps=200)
    events += [
        fault(20, "freeze", seconds=5, number=8),
        fault(25, "freeze", seconds=5, number=8, over=True),
        fault(30, "partition", number=9),
        fault(33, "clock_jump", "worker-2", number=10),
    ]
    data, document = replayed(events)
    places = {peer["name"]: peer for peer in data["peers"]}
    began = tell(events).began - T0
    assert places["worker-1"]["hurts"][0] == ["frozen", round(20 - began, 2), round(25 - began, 2)]
    assert places["worker-1"]["hurts"][1][0] == "far"
    assert places["worker-2"]["hurts"][0][0] == "sick"
    assert len(places["worker-3"]["lives"]) == 1
    assert places["worker-3"]["lives"][0][1] < data["trained"] / 2 < data["end"]
    assert data["steps"][-1] == sum(len(worker.steps) for worker in tell(events).workers)
    assert sorted(data["met"]) == data["met"]
    assert "<title>killed</title>" in document


def test_a_long_run_keeps_a_bounded_number_of_meetings():
    data, _ = replayed(fake_run(steps=6000))
    assert len(data["met"]) <= 4000
    assert data["thinned"] > 1
