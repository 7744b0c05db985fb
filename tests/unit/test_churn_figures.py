"""What the events say of kills, comebacks and who took part."""

from __future__ import annotations

import pytest

from peers.churn import fault_counts, participation, recoveries, recovery_figures
from peers.story import tell
from peers.summary import summarise
from swarmnet.events import ExchangeDone, FaultInjected, PeerStarted, StepDone
from tests.unit.synthetic import T0, fake_run, record

H, STEP_S = 2, 1.0


def life(name, begin, end, meets=()):
    """A process that steps every second from ``begin`` to ``end`` and meets at given seconds."""
    lines = [record(T0 + begin, name, PeerStarted("worker", "r", "f", f"id-{name}"))]
    for second in range(begin + 1, end + 1):
        step = StepDone(second, 2.0, 1e-3, 8, second / 100, STEP_S, 0.0)
        lines.append(record(T0 + second, name, step))
    met = ExchangeDone("train", "ok", "id-other", 1, distance=0.1)
    return lines + [record(T0 + second + 0.5, name, met) for second in meets]


def fault(at, kind, subject, **more):
    return record(T0 + at, "demo", FaultInjected(kind, subject, **more))


STORM = [
    *life("a", 0, 30, range(0, 30, 2)),
    *life("b", 0, 10, range(0, 10, 2)),
    fault(10, "kill", "b", seconds=4.0, number=1),
    fault(14, "kill", "b", seconds=4.0, number=1, over=True, successor="b"),
    *life("b", 16, 30, [17, *range(20, 30, 2)]),
    *life("c", 0, 30, range(0, 12, 2)),
    fault(12, "freeze", "c", seconds=18.0, number=2),
    fault(30, "freeze", "c", seconds=18.0, number=2, over=True),
]


def test_a_comeback_is_timed_from_the_kill():
    story = tell(STORM)
    [back] = recoveries(story)
    assert (back.name, back.forked, back.resumed, back.met) == ("b", 4.0, 7.0, 7.5)
    assert recovery_figures(story) == {
        "returned": 1,
        "resume_s": {"median": 7.0, "max": 7.0},
        "fully_back_s": {"median": 7.5, "max": 7.5},
        "missing": 0,
    }


def test_two_lives_are_told_apart():
    worker = next(w for w in tell(STORM).workers if w.name == "b")
    assert worker.lives == [(T0, T0 + 10), (T0 + 16, T0 + 30)]
    assert worker.train_s == 24
    assert worker.survived


def test_who_is_frozen_counts_among_the_living_but_not_among_the_able():
    shares = participation(tell(STORM), H)
    assert shares["period_s"] == 3.0
    assert shares["able"] == 1.0
    assert shares["alive"] < 0.85


def test_a_swarm_that_never_met_has_no_share():
    assert participation(tell(life("a", 0, 5)), H)["alive"] is None
    assert participation(tell(STORM), None)["alive"] is None


def test_faults_are_counted_by_kind_and_a_partition_once():
    lines = [*STORM, *(fault(20, "partition", name, number=3) for name in "ab")]
    assert fault_counts(tell(lines)) == {"freeze": 1, "kill": 1, "partition": 1, "returned": 1}


def test_a_successor_of_another_name_has_joined():
    lines = [
        *life("a", 0, 20),
        *life("b", 0, 5),
        fault(5, "kill", "b", number=1),
        fault(7, "kill", "b", number=1, over=True, successor="d"),
        *life("d", 8, 20, [12]),
    ]
    story = tell(lines)
    assert [w.name for w in story.workers if w.joined] == ["d"]
    assert recoveries(story)[0].met == 7.5
    assert summarise(lines)["peers"] == {"started": 2, "killed": 1, "joined": 1, "finished": 0}


def test_a_run_with_one_kill_and_one_join_says_so():
    summary = summarise(fake_run(steps=60))
    assert summary["faults"] == {"join": 1, "kill": 1}
    assert summary["recovery"]["returned"] == 0
    assert summary["peers"]["killed"] == pytest.approx(1)
