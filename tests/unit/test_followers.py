"""A stage joiner whose copy takes longer than a step: it takes the steps that its mates took."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from swarmnet.errors import PayloadError
from swarmnet.pipeline.past import Commit, Past
from swarmnet.pipeline.steplog import Logged, StepLog
from swarmnet.sim.clock import run
from tests.unit.pipelines import LENGTH, ROWS, Pipeline

TARGET = 6 * ROWS * LENGTH


def commits(n: int, past: Past | None = None, seed: int = 0) -> list[Commit]:
    luck, found = random.Random(seed), []
    past = past or Past()
    for number in range(n):
        ids = tuple(sorted(luck.sample(range(1 << 62), 3)))
        works, claimed = {"a": 60, "b": 40}, {"a": ids[:2], "b": ids[2:]}
        found.append(Commit.of(past, works, claimed, f"a {number}", 0.5 * number))
        past = found[-1].past
    return found


def logged(commit: Commit, mean: float = 1.0) -> Logged:
    return Logged.of(commit, np.array([mean]))


def test_a_step_crosses_the_network_and_leads_to_the_same_past() -> None:
    past = Past()
    for commit in commits(5):
        there = Logged.unpack(logged(commit).pack(), np.array([1.0]))
        past = there.after(past)
        assert past == commit.past


def test_a_step_that_is_not_the_next_one_is_refused() -> None:
    first, second = commits(2)
    with pytest.raises(PayloadError, match="does not follow"):
        logged(second).after(Past())
    with pytest.raises(PayloadError, match="does not follow"):
        logged(first).after(first.past)
    [fork] = commits(1, seed=1)
    with pytest.raises(PayloadError, match="does not follow"):
        logged(second).after(fork.past)


@pytest.mark.parametrize(
    "lie",
    [
        {"ids": b"1234567"},
        {"ids": b"22222222" + b"11111111"},
        {"tokens": -1},
        {"step": "5"},
        {"by": 7},
        {"elapsed_s": float("nan")},
        {"lineage": "x" * 65},
    ],
)
def test_what_no_step_can_be_is_refused(lie: dict[str, object]) -> None:
    [commit] = commits(1)
    with pytest.raises(PayloadError, match="cannot be read"):
        Logged.unpack(logged(commit).pack() | lie, np.array([1.0]))


@pytest.mark.parametrize(
    "lie", [{"tokens": 99}, {"by": "b 0"}, {"ids": b"11111111"}, {"elapsed_s": 7.0}]
)
def test_what_is_said_of_a_step_must_fit_its_name(lie: dict[str, object]) -> None:
    [commit] = commits(1)
    there = Logged.unpack(logged(commit).pack() | lie, np.array([1.0]))
    with pytest.raises(PayloadError, match="does not follow"):
        there.after(Past())


def test_nothing_is_kept_while_nobody_copies_and_little_while_somebody_does() -> None:
    copied: list[np.ndarray] = []

    def copy(mean: np.ndarray) -> np.ndarray:
        copied.append(mean)
        return mean.copy()

    log, steps = StepLog(copy, free=lambda: 8 * 40), commits(60)
    log.note(steps[0], np.ones(1))
    assert not copied
    log.keep(until=10.0)
    for commit in steps[1:]:
        log.note(commit, np.ones(1))
    log.tidy(9.9)
    kept = [commit.past.step for commit in steps if log.get(commit.past.step) is not None]
    assert kept == [commit.past.step for commit in steps[-13:]]
    log.tidy(10.0)
    assert log.get(steps[-1].past.step) is None
    log.note(steps[-1], np.ones(1))
    assert len(copied) == len(steps) - 1


def test_one_step_is_kept_where_there_is_no_memory_for_any() -> None:
    log, steps = StepLog(np.copy, free=lambda: 0), commits(3)
    log.keep(until=10.0)
    for commit in steps:
        log.note(commit, np.ones(1))
    assert [log.get(n) is not None for n in (1, 2, 3)] == [False, False, True]


def joined(*, follows: bool, copy_s: float) -> tuple[Pipeline, object, int]:
    """A stage peer that comes while its stage steps; and how many of the last steps it was in."""

    async def main() -> tuple[Pipeline, object, int]:
        pipeline = Pipeline((1, 2, 1), target=TARGET, work_s=0.05)
        pipeline.follows, pipeline.copy_s = follows, copy_s
        await pipeline.start()
        pipeline.limit = 100_000
        await asyncio.sleep(10.0)
        mate = pipeline.of(1)[0]
        joiner = pipeline.add(1)
        await joiner.start()
        await asyncio.sleep(10 * copy_s)
        before = len(mate.commits)
        await asyncio.sleep(10 * copy_s)
        late = mate.commits[before:]
        assert len(late) > 20
        pipeline.limit = pipeline.given
        await pipeline.flush()
        await asyncio.sleep(20.0)
        pipeline.judge()
        return pipeline, joiner, sum(joiner.me in commit.works for commit in late) / len(late)

    return run(main())


def test_a_joiner_whose_copy_takes_as_long_as_several_steps_is_one_of_its_stage_soon() -> None:
    _, joiner, share = joined(follows=True, copy_s=5.0)
    assert joiner.copies == 1
    assert joiner.followed > 3
    assert share > 0.95


def test_without_the_steps_of_its_mates_it_would_copy_for_ever() -> None:
    _, joiner, share = joined(follows=False, copy_s=5.0)
    assert joiner.copies > 5
    assert share < 0.2
