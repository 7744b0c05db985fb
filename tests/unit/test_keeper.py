"""The keeper: what it writes beside training, what it finds at a start, and what it says."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from peers.keeper import FOLDER, Keeper
from peers.portrait import Portrait
from swarmnet.config import PeerConfig
from swarmnet.errors import PayloadError, StorageError
from swarmnet.events import CheckpointPassedOver, CheckpointWritten
from swarmnet.train import checkpoint
from swarmnet.train.mirror import Mirror


class Kept:
    """A folder, its keeper, and the events of both."""

    def __init__(self, out: Path, run: str = "r", **settings: Any) -> None:
        self.events: list[Any] = []
        peer = PeerConfig(**settings)
        self.keeper = Keeper(out, run, peer, self.events.append)
        self.run = run

    def write(self, step: int, *, wait: bool = True, finish: Any = lambda: None) -> None:
        facts = {"fingerprint": self.run, "step": step, "elapsed_s": float(step)}
        tensors = {"theta": torch.full((10,), float(step))}
        self.keeper.write(lambda: Portrait(tensors, facts, finish), wait=wait)

    def step(self, check: Any = lambda kept: None, **expect: Any) -> int | None:
        found = self.keeper.read(check, **expect)
        return None if found is None else found.facts["step"]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def test_what_was_written_is_found_and_as_many_as_configured(tmp_path: Path) -> None:
    kept = Kept(tmp_path, checkpoints=2, hourly=0)
    for step in (1, 2, 3):
        kept.write(step)
    assert Kept(tmp_path).step() == 3
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    written = kept.of(CheckpointWritten)
    assert [event.step for event in written] == [1, 2, 3]
    assert all(event.error == "" and event.bytes > 40 for event in written)


def test_another_runs_folder_is_one_line_and_stays(tmp_path: Path, caplog: Any) -> None:
    theirs = Kept(tmp_path, "theirs")
    for step in (7, 8):
        theirs.write(step)
    mine = Kept(tmp_path, "mine", checkpoints=1, hourly=0)
    with caplog.at_level(logging.WARNING):
        assert mine.step() is None
    [line] = caplog.messages
    assert "2 checkpoints" in line
    assert "not deleted" in line
    assert len(mine.of(CheckpointPassedOver)) == 2
    for step in (1, 2, 3):
        mine.write(step)
    assert Kept(tmp_path, "theirs").step() == 8
    assert Kept(tmp_path, "mine").step() == 3


def test_a_damaged_one_is_one_line_and_the_one_before_serves(tmp_path: Path, caplog: Any) -> None:
    kept = Kept(tmp_path)
    kept.write(1)
    kept.write(2)
    newest = max((tmp_path / FOLDER).iterdir())
    os.truncate(newest / checkpoint.TENSORS, 50)
    with caplog.at_level(logging.WARNING):
        assert kept.step() == 1
    assert len(caplog.messages) == 1
    [event] = kept.of(CheckpointPassedOver)
    assert event.folder == newest.name
    assert "torn" in event.reason


def test_one_that_does_not_fit_gives_way_to_the_one_before(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for step in (1, 2, 3):
        kept.write(step)

    def check(found: Portrait) -> None:
        if found.facts["step"] > 1:
            raise PayloadError("of another model")

    assert kept.step(check) == 1
    assert [e.reason for e in kept.of(CheckpointPassedOver)] == ["of another model"] * 2


def test_a_stage_finds_its_own_stage(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.write(1)
    assert kept.step(stage=1) is None
    assert kept.step() == 1


def test_a_refusing_disk_is_an_event_and_not_an_end(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    kept = Kept(tmp_path)
    kept.write(1)
    [event] = kept.of(CheckpointWritten)
    assert "no checkpoint could be written" in event.error
    assert event.bytes == 0
    assert kept.step() is None


def test_the_copy_is_taken_only_when_the_last_one_is_written(tmp_path: Path) -> None:
    """There is one place for it: a copy that came earlier would change what is being written."""
    kept, held, taken = Kept(tmp_path), threading.Event(), []
    kept.write(1, wait=False, finish=held.wait)
    assert kept.keeper.busy

    def take() -> Portrait:
        taken.append(kept.of(CheckpointWritten)[-1].step)
        return Portrait({}, {"fingerprint": "r", "step": 2})

    second = threading.Thread(target=lambda: kept.keeper.write(take, wait=True))
    second.start()
    assert not taken
    held.set()
    second.join(10.0)
    assert taken == [1]
    assert kept.step() == 2


def test_the_first_one_is_due_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    kept = Kept(tmp_path, checkpoint_s=60.0)
    kept.keeper.begin()
    for at, due in ((109.0, False), (111.0, True)):
        now[0] = at
        assert kept.keeper.due is due
    kept.write(1)
    for at, due in ((170.0, False), (172.0, True)):
        now[0] = at
        assert kept.keeper.due is due


def test_a_mirror_copies_into_the_same_memory_every_time() -> None:
    mirror, live = Mirror(torch.device("cpu")), {"a": torch.zeros(5), "b": torch.ones(())}
    first = mirror.take(live)
    live["a"] += 3
    mirror.guard()
    mirror.finish()
    assert first["a"].sum() == 0
    second = mirror.take(live)
    assert second["a"].sum() == 15
    assert second["a"].data_ptr() == first["a"].data_ptr()
    assert mirror.take({"a": torch.zeros(2)}).keys() == {"a"}


def test_only_storage_errors_are_swallowed(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> Any:
        raise StorageError("full")

    monkeypatch.setattr(checkpoint, "write", refuse)
    kept = Kept(tmp_path)
    kept.write(4)
    [event] = kept.of(CheckpointWritten)
    assert (event.step, event.error) == (4, "full")
