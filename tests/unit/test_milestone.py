"""What a bootstrap remembers of the run, over its own restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from peers.milestone import FILE, Memory, Milestone
from swarmnet.exchange.membership import Membership, Status

WORTH_S = 60.0


def members(**said: tuple[int, float]) -> Membership:
    view = Membership("me", 1.0)
    for peer, (step, elapsed_s) in said.items():
        status = Status(1, 1, "training", "worker", step=step, elapsed_s=elapsed_s)
        view.observe(peer, status, 0.0)
    return view


def look(memory: Memory, **said: tuple[int, float]) -> Milestone:
    memory.look(members(**said), list(said))
    return memory.told


def test_the_furthest_in_training_time_is_told_and_kept(tmp_path: Path) -> None:
    memory = Memory(tmp_path, WORTH_S)
    assert look(memory) == Milestone()
    assert look(memory, ann=(900, 70.0), bob=(20, 80.0)) == Milestone(20, 80.0)
    assert look(memory, ann=(901, 71.0)) == Milestone(20, 80.0)
    assert Memory(tmp_path, WORTH_S).told == Milestone(20, 80.0)


def test_a_run_that_hardly_began_may_be_begun_anew(tmp_path: Path) -> None:
    memory = Memory(tmp_path, WORTH_S)
    assert look(memory, ann=(30, 59.0)) == Milestone()
    assert look(memory, ann=(31, 60.0)) == Milestone(31, 60.0)


@pytest.mark.parametrize("said", ["", "[]", "{", '{"step": "x", "elapsed_s": 1}', '{"step": 1}'])
def test_a_damaged_memory_is_none(tmp_path: Path, said: str) -> None:
    (tmp_path / FILE).write_text(said)
    assert Memory(tmp_path, WORTH_S).told == Milestone()


def test_a_refusing_disk_costs_the_memory_only(tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").mkdir()
    memory = Memory(tmp_path, WORTH_S)
    assert look(memory, ann=(1000, 99.0)) == Milestone(1000, 99.0)
    assert not (tmp_path / FILE).exists()
