"""What the user of a local swarm wishes becomes a run file, a target and who is slow."""

from __future__ import annotations

import pytest

from peers.configs_folder import shipped
from peers.demo import DemoOptions, victim
from peers.local import Wishes, prepare
from peers.shows import closing_lines, worker_line
from peers.slow import Slow, slow_workers
from peers.summary import summarise
from swarmnet.config import RunFile
from swarmnet.events import PeerStarted, StepDone
from tests.unit.synthetic import T0, fake_run, record

DEMO = shipped("runs", "demo")


def prepared(out, **wishes):
    return prepare(Wishes(DEMO, **wishes), out, churn=True, solo=False)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], {}),
        (["1:10"], {1: 10.0}),
        (["0:2.5, 4:3"], {0: 2.5, 4: 3.0}),
        (["0:2", "4:3,2:1"], {0: 2.0, 4: 3.0, 2: 1.0}),
    ],
)
def test_slow_workers_are_given_one_by_one_or_with_commas(items, expected):
    assert slow_workers(items, 5) == expected


def test_all_slows_whoever_is_not_named_and_whoever_joins():
    slow = slow_workers(["all:4", "1:10"], 5)
    assert [slow[index] for index in (0, 1, 4, 99)] == [4.0, 10.0, 4.0, 4.0]


def test_a_slow_worker_leaves_the_steps_of_the_others_as_they_are(tmp_path):
    whole = prepared(tmp_path / "a", workers=4).run.config.target.tokens
    five = prepared(tmp_path / "b", workers=5, slow=Slow({1: 10.0}))
    assert five.run.config.target.tokens == int(whole / 4 * 4.1)
    assert five.slow == {1: 10.0}
    given = prepared(
        tmp_path / "c", workers=5, slow=Slow({1: 10.0}), overrides=("target.tokens=77",)
    )
    assert given.run.config.target.tokens == 77


@pytest.mark.parametrize(("slow", "killed"), [({}, 1), ({0: 9}, 1), ({1: 9}, 2), ({1: 9, 2: 9}, 1)])
def test_who_is_slow_is_not_killed_unless_nobody_else_is_left(tmp_path, slow, killed):
    options = DemoOptions(RunFile.load(DEMO), tmp_path, workers=3, slow=Slow(slow))
    assert victim(options) == killed


def test_the_demo_ends_with_a_line_for_each_worker_only_if_one_is_slow(tmp_path):
    events = fake_run(steps=60)
    assert not any("stalled" in line for line in closing_lines(summarise(events), tmp_path))
    events += [
        record(T0, "slow", PeerStarted("worker", "demo", "f", "id-slow", slowdown=10.0)),
        record(T0 + 9, "slow", StepDone(1, 2.0, 1e-3, 1, 0.1, 3.0, 0.03)),
    ]
    lines = closing_lines(summarise(events), tmp_path)
    assert sum("stalled" in line for line in lines) == 6
    said = worker_line(summarise(events)["workers"][0])
    assert said.startswith("slow: 1 steps, 0 meetings while training, 0 alone, stalled 1.0 %")
    assert said.endswith("10 times slower")
