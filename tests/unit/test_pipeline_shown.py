"""The live view and the report of a pipeline, and the plan of what befalls it."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console

from peers.console import OwnView
from peers.pipeline.churn import JOIN_AT, KILL_AT, Churn, spread
from peers.pipeline.page import page
from peers.pipeline.story import recount
from peers.pipeline.summary import summarise
from peers.pipeline.view import PipelineView
from peers.shows import pipeline_lines
from swarmnet.events import (
    DonorLeft,
    PeerStarted,
    StageLoad,
    StageTaken,
    StateAwaited,
    StateTaken,
    TripsDone,
)
from tests.unit.fake_pipeline import ENDING, fake_pipeline
from tests.unit.synthetic import T0, record
from tests.unit.test_report import EVIL, Reader


@pytest.fixture(scope="module")
def events():
    return fake_pipeline()


def told(events, view=None):
    view = view or PipelineView("pipeline")
    for event in events:
        view.update(event)
    return view


def shown(view, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view.render())
    return console.file.getvalue()


def until(events, step):
    last = max(i for i, e in enumerate(events) if e["event"] == "trips" and e["begun"] == 8 * step)
    return events[: last + 1]


def test_before_anything_happened_it_says_so():
    assert "nobody yet" in shown(PipelineView("p"))
    assert "nobody yet" in PipelineView("p").plain_line()


def test_midway_it_shows_stages_queues_trips_and_faults(events):
    view = told(until(events, 45))
    text = shown(view)
    assert "3 stages served by 6 peers" in text
    assert text.count("serving") == 6
    assert text.count("killed") >= 1
    assert "peer-2 moved from stage 0 to stage 2 (5.0 MB in 0.5 s)" in text
    assert "peer-3 was killed at" in text
    assert "died 2, late 1" in text
    assert "75%" in text
    assert "\N{FULL BLOCK}" in text
    line = view.plain_line()
    assert "stage 1 (2 peers): step 45" in line
    assert "360 of 360 samples in steps" in line
    assert "\n" not in line


def test_it_fits_eighty_columns_without_cutting_a_figure(events):
    text = shown(told(until(events, 45)), width=80)
    rows = [row for row in text.splitlines() if "serving" in row]
    assert len(rows) == 6
    assert not any("\N{HORIZONTAL ELLIPSIS}" in row for row in rows)


def test_a_trainer_says_which_stage_it_waits_for():
    waits = TripsDone(6, 6, 0, 0, 6, {}, 0, 0, 0.0, 0.0, 6, 0.1, [1])
    view = OwnView("run")
    view.update(record(T0, "me", PeerStarted("trainer", "r", "f", "id")))
    view.update(record(T0 + 1, "me", waits))
    assert "waiting for stage 1: nobody serves it" in view.plain_line()
    assert "waiting for stage 1: nobody serves it" in shown(view)
    view.update(record(T0 + 2, "me", dataclasses.replace(waits, unserved=[0, 1])))
    assert "waiting for stages 0, 1: nobody serves them" in view.plain_line()


def test_a_stage_peer_says_its_stage_and_step():
    view = OwnView("run")
    view.update(record(T0, "me", PeerStarted("stage", "r", "f", "id")))
    view.update(record(T0 + 1, "me", StageTaken(2, -1, [4, 5], 10, 7, 0.1)))
    assert "stage 2: step 7, 0 waiting" in view.plain_line()


def test_a_process_says_that_it_joins_until_it_has_a_role_and_a_worker_is_shown_as_one():
    view = OwnView("run")
    assert view.plain_line() == "joining the run"
    assert "joining the run" in shown(view)
    view.update(record(T0, "me", PeerStarted("worker", "r", "f", "id")))
    assert "1 starting" in view.plain_line()


def test_a_process_says_how_far_it_has_come_with_its_state():
    view = OwnView("run")
    view.update(record(T0, "me", StateAwaited(174, 69, 2, 12.0)))
    view.update(record(T0, "me", DonorLeft("ann", "gone", banned=False)))
    far = "taking its state: 105 of 174 chunks from 2 donors (0:12)"
    assert view.plain_line() == far
    assert far in shown(view)
    view.update(record(T0 + 1, "me", StateAwaited(174, 69, 0, 13.0, "ann is busy")))
    assert view.plain_line() == "taking its state: ann is busy (0:13)"
    view.update(record(T0 + 2, "me", PeerStarted("worker", "r", "f", "id")))
    assert "1 starting" in view.plain_line()


def test_a_peer_that_missed_steps_says_beside_its_board_that_it_takes_the_state_anew():
    view = OwnView("run")
    view.update(record(T0, "me", PeerStarted("stage", "r", "f", "id")))
    view.update(record(T0 + 1, "me", StageTaken(2, -1, [4, 5], 10, 7, 0.1)))
    view.update(record(T0 + 2, "me", StateAwaited(9, 3, 1, 4.0)))
    view.update(record(T0 + 2, "me", StageLoad(2, 7, *[0] * 9)))
    view.update(record(T0 + 2, "mine-too", StateTaken("donor", 7, "ab")))
    text = shown(view)
    assert "6 of 9 chunks from 1 donor (0:04)" in text
    assert "serving" in text
    view.update(record(T0 + 3, "me", StateTaken("donor", 8, "ab")))
    assert "chunks" not in shown(view)


def read(events, ending=None):
    text = page(recount(events), summarise(events, ending))
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return text, reader


def test_the_page_is_whole_small_and_loads_nothing(events):
    text, reader = read(events, ENDING)
    assert len(text) < 500_000
    assert reader.links == []
    assert "script" not in reader.tags
    assert not re.search(r"https?:|url\(|@import", text)
    assert reader.tags.count("svg") >= 5


def test_it_shows_the_ledger_the_moves_and_the_boundary(events):
    words = " ".join(read(events, ENDING)[1].words)
    for said in (
        "peer-2 moved from stage 0 to stage 2",
        "peer-3 was killed",
        "peer-6 joined and took stage 1",
        "All 480 samples are in one step of every stage.",
        "480 (0 twice, 0 missing)",
        "again: died",
        "130 B",
        "2.100",
    ):
        assert said in words


def test_text_of_peers_is_escaped_everywhere(events):
    evil = []
    for line in events:
        line = dict(line)
        for key in ("peer", "subject"):
            if line.get(key) in ("peer-3", "trainer-0"):
                line[key] += EVIL
        if line["event"] == "peer_started":
            line["run"] = EVIL
        if line["event"] == "trips":
            line["causes"] = {EVIL: 1}
        evil.append(line)
    text, reader = read(evil, ENDING)
    assert "script" not in reader.tags
    assert "\x1b" not in text
    shown_text = shown(told(evil))
    assert "\x1b" not in shown_text


def test_a_run_without_anything_still_makes_a_page():
    read([])
    read([record(T0, "p", PeerStarted("stage", "r", "f", "id"))])
    read([record(T0, "t", PeerStarted("trainer", "r", "f", "id"))])


def test_the_closing_lines_say_whether_all_is_accounted_for(events, tmp_path):
    lines = pipeline_lines(summarise(events, ENDING), tmp_path)
    assert "480 samples, each in one step of every stage; 3 sent again" in lines
    assert "logits within 0.0e+00 of the stages" in lines[0]
    fewer = [line for line in events if (line["event"], line.get("step")) != ("stage_step", 9)]
    assert "NOT ALL ACCOUNTED FOR" in " ".join(pipeline_lines(summarise(fewer, ENDING), tmp_path))


@pytest.mark.parametrize(
    ("peers", "stages", "lopsided", "counts"),
    [
        (6, 3, True, [3, 2, 1]),
        (6, 3, False, [2, 2, 2]),
        (7, 3, False, [3, 2, 2]),
        (4, 2, True, [3, 1]),
        (3, 3, True, [1, 1, 1]),
    ],
)
def test_peers_are_spread_over_the_stages(peers, stages, lopsided, counts):
    assert spread(peers, stages, lopsided=lopsided) == counts


def churn(events):
    plan = Churn(3, renew_s=2.0)
    for event in events:
        plan.hear(event)
    return plan


def test_nobody_is_hurt_before_the_move_and_a_newcomer_waits_until_the_death_is_known():
    plan = churn(event for event in fake_pipeline() if event["event"] == "stage_taken")
    plan.progress = KILL_AT
    assert plan.victim() == "peer-3"
    assert plan.due(100.0) == "kill"
    assert plan.due(100.0) is None
    plan.progress = JOIN_AT
    assert plan.due(109.0) is None
    assert plan.due(110.0) == "join"
    assert plan.due(200.0) is None


def test_the_kill_waits_for_a_move_but_not_for_ever():
    plan = churn(e for e in fake_pipeline() if e["event"] == "stage_taken" and e["left"] < 0)
    plan.progress = KILL_AT
    assert plan.due(1.0) is None
    plan.progress = 0.46
    assert plan.due(1.0) == "kill"


def test_who_serves_a_stage_alone_is_not_killed():
    plan = Churn(2, 2.0, serves={"a": 0, "b": 1}, progress=0.9, moved=True)
    assert plan.due(1.0) is None
