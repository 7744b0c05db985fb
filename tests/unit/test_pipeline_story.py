"""A pipeline's events become a story and a summary whose two books balance."""

from __future__ import annotations

import json

import pytest

from peers.pipeline.story import recount
from peers.pipeline.summary import accounted, summarise
from swarmnet.events import (
    PeerStarted,
    SamplesLost,
    StageStepped,
    StageTaken,
    StateTaken,
    TripsDone,
)
from tests.unit.fake_pipeline import ENDING, PER_STEP, TOKENS, fake_pipeline
from tests.unit.synthetic import T0, record
from tests.unit.test_summary import CONTRACT


@pytest.fixture(scope="module")
def events():
    return fake_pipeline()


@pytest.fixture(scope="module")
def summary(events):
    return summarise(events, ENDING)


def trips(begun, settled, **more):
    told = TripsDone(begun, 0, begun - settled, settled, begun, {}, 1, 8, 2.0, 0.5, 4, 0.5, [])
    return told if not more else TripsDone(**(vars(told) | more))


def step(stage, number, lineage, samples=4, members=2):
    return StageStepped(stage, number, members, samples, 2, 8 * samples, 1e-3, 0.1, lineage, 0.5)


def stage_peer(name, stage, at=T0):
    taken = StageTaken(stage, -1, [stage], 10, 0, 0.1)
    return [
        record(at, name, PeerStarted("stage", "r", "f", f"id-{name}")),
        record(at, name, taken),
    ]


def test_holds_every_key_of_the_contract_as_json(summary):
    assert summary.keys() >= CONTRACT
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["exchange_cost"] is None
    assert summary["eval"] == {"merged": 2.1, "mean_of_peers": 2.1}
    assert summary["disagreement"] == {"first": None, "last": 0.0}


def test_peers_and_what_befell_them(summary):
    assert summary["peers"] == {"started": 7, "killed": 1, "joined": 1, "finished": 7}
    rows = {row["name"]: row for row in summary["servers"]}
    assert rows["peer-2"]["stages"] == [0, 2]
    assert rows["peer-3"]["killed"]
    assert rows["peer-6"]["joined"]
    [move] = summary["migrations"]
    assert (move["peer"], move["from"], move["to"], move["bytes"]) == ("peer-2", 0, 2, 5_000_000)


def test_the_two_books_balance(summary):
    ledger = summary["ledger"]
    assert ledger["begun"] == ledger["settled"] == 60 * PER_STEP
    assert (ledger["open"], ledger["lost"], ledger["dropped"]) == (0, 0, 0)
    assert ledger["attempts"] == ledger["begun"] + 3
    assert ledger["causes"] == {"died": 2, "late": 1}
    for stage in summary["stages"]:
        assert (stage["steps"], stage["samples"]) == (60, 60 * PER_STEP)
        assert (stage["duplicates"], stage["missing"]) == (0, 0)
        assert stage["tokens"] == 60 * PER_STEP * TOKENS
    assert accounted(summary)


def test_steps_are_counted_once_however_many_peers_took_them(summary):
    assert summary["exchanges"]["failed"] == 0
    alone = summary["exchanges"]["solo"]
    assert summary["exchanges"]["ok"] + alone == 3 * 60
    assert alone == 14 + 10  # stage 2 before the move, stage 1 between kill and join


def test_a_sample_that_counts_twice_is_seen(events):
    more = [line | {"samples": line["samples"] + 1} if twice(line) else line for line in events]
    summary = summarise(more, ENDING)
    assert [stage["duplicates"] for stage in summary["stages"]] == [0, 1, 0]
    assert not accounted(summary)


def twice(line):
    return line["event"] == "stage_step" and (line["stage"], line["step"]) == (1, 40)


def test_a_settled_sample_in_no_step_is_seen(events):
    gone = [line for line in events if not twice(line)]
    summary = summarise(gone, ENDING)
    assert [stage["missing"] for stage in summary["stages"]] == [0, PER_STEP, 0]
    assert not accounted(summary)


def test_what_a_killed_trainer_had_in_hand_is_lost_and_what_a_living_one_has_is_open(events):
    dead = [record(T0, "t", PeerStarted("trainer", "r", "f", "id-t"))]
    dead.append(record(T0 + 5, "t", trips(10, 7)))
    ledger = summarise([*events, *dead], ENDING)["ledger"]
    assert (ledger["lost"], ledger["open"]) == (3, 0)
    short = [line | {"settled": 470} if is_last(line) else line for line in events]
    ledger = summarise(short, ENDING)["ledger"]
    assert (ledger["lost"], ledger["open"]) == (0, 10)


def is_last(line):
    return line["event"] == "trips" and line["begun"] == 60 * PER_STEP


def test_samples_that_a_stage_dropped_are_counted(events):
    lost = record(T0 + 9, "peer-1", SamplesLost(0, 5))
    assert summarise([*events, lost], ENDING)["ledger"]["dropped"] == 5


def test_of_two_pasts_of_a_stage_the_one_counts_that_stands_at_the_end():
    lines = stage_peer("a", 0) + stage_peer("b", 0)
    lines.append(record(T0 + 1, "a", step(0, 1, "x1")))
    lines.append(record(T0 + 1, "b", step(0, 1, "x1")))
    lines.append(record(T0 + 2, "a", step(0, 2, "x2", samples=3, members=1)))
    lines.append(record(T0 + 2, "b", step(0, 2, "y2", samples=5, members=1)))
    lines.append(record(T0 + 3, "b", step(0, 3, "y3", members=1)))
    lines.append(record(T0 + 4, "a", StateTaken("donor", 3, "w", donor="id-b")))
    lines.append(record(T0 + 5, "a", step(0, 4, "y4")))
    lines.append(record(T0 + 5, "b", step(0, 4, "y4")))
    chain = recount(lines).steps(0)
    assert [line["lineage"] for line in chain] == ["x1", "y2", "y3", "y4"]


def test_a_stay_ends_where_the_next_begins_or_with_the_peer(events):
    course = recount(events)
    servers = {server.name: server for server in course.servers}
    first, second = servers["peer-2"].stays
    assert first.end == second.begin - 0.5
    assert servers["peer-3"].stays[-1].end <= servers["peer-3"].killed
    assert [server.name for server in course.at(1)] == ["peer-3", "peer-4", "peer-6"]
    assert course.layers(2) == ([4, 5], 400_000)


def test_a_run_of_nothing_has_a_summary():
    summary = summarise([])
    assert summary["ledger"]["begun"] == 0
    assert summary["stages"] == []
    assert summary["loss"] == {"first": None, "last": None}
