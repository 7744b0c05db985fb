from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from swarmnet.errors import StorageError
from swarmnet.train import checkpoint, tensorfile
from swarmnet.train.ring import Entry, Ring


def state(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    theta = torch.randn(1000, generator=generator)
    return {
        "theta": theta,
        "phi": theta,
        "part": theta[10:20],
        "columns": theta.view(100, 10).T,
        "step": torch.tensor(float(step)),
        "empty": torch.empty(0),
    }


TWO = Ring(2)


def write(folder: Path, *steps: int, run: str = "r", ring: Ring = TWO) -> checkpoint.Written:
    metas = [{"step": n, "run": run, "elapsed_s": float(n)} for n in steps]
    return [checkpoint.write(folder, state(m["step"]), m, ring) for m in metas][-1]


def place(folder: Path, step: int) -> Path:
    [found] = folder.glob(f"*-step-{step:06d}")
    return found


def step_of(folder: Path, **expect: Any) -> int | None:
    loaded = checkpoint.read(folder, expect)
    if loaded is None:
        return None
    tensors, meta = loaded
    expected = state(meta["step"])
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    return int(meta["step"])


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps_in(folder: Path) -> list[int]:
    """In the order of writing."""
    return [int(name.rpartition("-")[2]) for name in listed(folder)]


def test_round_trip_with_meta_and_size(tmp_path: Path) -> None:
    meta = {"step": 7, "nested": {"list": [1, 2.5, None]}, "text": "\u00e9"}
    written = checkpoint.write(tmp_path / "new" / "place", state(7), meta)
    loaded = checkpoint.read(tmp_path / "new" / "place")
    assert loaded is not None
    assert loaded[1] == meta
    assert loaded[0]["step"].shape == ()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written.bytes == sum(path.stat().st_size for path in files)
    assert written.dropped == 0


def test_the_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "bytes": torch.arange(13, dtype=torch.uint8),
        "half": torch.randn(3, 5).bfloat16(),
        "double": torch.randn(7, dtype=torch.float64),
        "count": torch.tensor([1 << 40]),
        "long": torch.randn(3_000_000),
    }
    checkpoint.write(tmp_path, tensors, {"step": 1})
    found = load_file(place(tmp_path, 1) / checkpoint.TENSORS)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_the_writer_rests_after_every_slice(tmp_path: Path) -> None:
    rests: list[float] = []
    checkpoint.write(tmp_path, {"a": torch.zeros(3 << 20)}, {"step": 1}, TWO, rests.append)
    assert len(rests) == 1 + (12 << 20) // tensorfile.SLICE
    assert all(worked_s > 0 for worked_s in rests)


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.read(tmp_path) is None
    assert checkpoint.read(tmp_path / "absent") is None


def test_newest_two_are_kept(tmp_path: Path) -> None:
    write(tmp_path, 1, 5, 1_000_000, 1_000_001)
    assert listed(tmp_path) == ["000003-step-1000000", "000004-step-1000001"]
    assert step_of(tmp_path) == 1_000_001


def test_the_newest_is_the_last_that_was_written_whatever_its_step(tmp_path: Path) -> None:
    """A peer that fell back to a donor of fewer steps goes on from there."""
    write(tmp_path, 900, 1000, 50)
    assert step_of(tmp_path) == 50
    write(tmp_path, 60, 70)
    assert steps_in(tmp_path) == [60, 70]


def test_one_of_each_hour_of_training_stays(tmp_path: Path) -> None:
    ring = Ring(last=2, hourly=3)
    write(tmp_path, *range(0, 20_000, 600), ring=ring)
    assert steps_in(tmp_path) == [10_800, 14_400, 18_000, 19_200, 19_800]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 5), st.integers(0, 5))
def test_a_ring_is_bounded_keeps_the_newest_and_what_it_chose(hours, last, hourly) -> None:
    """Training time may jump back: a peer falls back to an older state."""
    ring, held = Ring(last, hourly), list[Entry]()
    for serial, elapsed_s in enumerate(hours):
        held.append(Entry(serial, elapsed_s))
        staying = ring.staying(held)
        assert staying >= {entry.serial for entry in held[-last:]}
        assert len(staying) <= last + hourly
        held = [entry for entry in held if entry.serial in staying]
        assert ring.staying(held) == staying


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x10
    path.write_bytes(raw)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "tensors torn": lambda folder: truncate(folder / checkpoint.TENSORS),
    "tensors empty": lambda folder: (folder / checkpoint.TENSORS).write_bytes(b""),
    "tensors gone": lambda folder: (folder / checkpoint.TENSORS).unlink(),
    "tensors flipped": lambda folder: flip(folder / checkpoint.TENSORS, -5),
    "header flipped": lambda folder: flip(folder / checkpoint.TENSORS, 30),
    "manifest torn": lambda folder: truncate(folder / checkpoint.MANIFEST),
    "manifest gone": lambda folder: (folder / checkpoint.MANIFEST).unlink(),
    "manifest binary": lambda folder: (folder / checkpoint.MANIFEST).write_bytes(b"\xff\0"),
    "manifest a list": lambda folder: (folder / checkpoint.MANIFEST).write_text("[1]"),
    "manifest foreign": lambda folder: (folder / checkpoint.MANIFEST).write_text('{"a": 1}'),
    "folder empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "manifest huge": lambda folder: os.truncate(folder / checkpoint.MANIFEST, 1 << 40),
    "tensors a folder": lambda folder: (
        (folder / checkpoint.TENSORS).unlink(),
        (folder / checkpoint.TENSORS).mkdir(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_gives_way_to_the_older(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 1, 2)
    DAMAGES[damage](place(tmp_path, 2))
    assert step_of(tmp_path) == 1
    DAMAGES[damage](place(tmp_path, 1))
    assert checkpoint.read(tmp_path) is None
    write(tmp_path, 2)
    assert step_of(tmp_path) == 2


def test_a_file_cut_at_any_length_is_seen(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    for name in (checkpoint.TENSORS, checkpoint.MANIFEST):
        path = place(tmp_path, 2) / name
        raw = path.read_bytes()
        header = 8 + int.from_bytes(raw[:8], "little")
        edges = {0, 1, 7, 8, 9, header - 1, header, header + 1, header + 4, len(raw) - 1}
        for length in sorted(edges | set(range(0, len(raw), 97))):
            if 0 <= length < len(raw):
                path.write_bytes(raw[:length])
                assert step_of(tmp_path) == 1
        path.write_bytes(raw + b"\0")
        assert step_of(tmp_path) == 1
        path.write_bytes(raw)
        assert step_of(tmp_path) == 2


def test_any_flipped_bit_of_the_tensors_is_seen(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    path = place(tmp_path, 2) / checkpoint.TENSORS
    raw = path.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    for at in [*range(header + 8), *range(header + 8, len(raw), 41), len(raw) - 1]:
        flip(path, at)
        assert step_of(tmp_path) == 1
        path.write_bytes(raw)


def test_files_and_folders_that_changed_places_are_seen(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, ring=Ring(3))
    one, two = place(tmp_path, 2), place(tmp_path, 3)
    for name in (checkpoint.TENSORS, checkpoint.MANIFEST):
        swap(one / name, two / name)
        assert step_of(tmp_path) == 1
        swap(one / name, two / name)
    swap(one, two)
    assert step_of(tmp_path) == 1
    swap(one, two)
    assert step_of(tmp_path) == 3


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_an_older_format_is_passed_over_and_stays(tmp_path: Path) -> None:
    write(tmp_path, 7)
    old = place(tmp_path, 7).rename(tmp_path / "step-000007")
    manifest = old / checkpoint.MANIFEST
    body = json.loads(manifest.read_bytes())
    del body["check"], body["name"]
    body["format"] = "swarmnet checkpoint 1"
    manifest.write_text(json.dumps(body | {"check": checkpoint._check(body)}))
    found = []
    assert not list(checkpoint.whole(tmp_path, {}, lambda _, error: found.append(error)))
    assert isinstance(found[0], checkpoint.ForeignError)
    write(tmp_path, 1, 2, 3)
    assert step_of(tmp_path) == 3
    assert old.exists()


def test_damaged_ones_go_when_they_are_older_than_the_ring(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    (place(tmp_path, 1) / checkpoint.MANIFEST).unlink()
    write(tmp_path, 3)
    assert steps_in(tmp_path) == [2, 3]
    (place(tmp_path, 3) / checkpoint.MANIFEST).unlink()
    write(tmp_path, 4)
    assert steps_in(tmp_path) == [2, 3, 4]


def test_any_flipped_bit_of_the_manifest_is_seen(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    manifest = place(tmp_path, 2) / checkpoint.MANIFEST
    raw = manifest.read_bytes()
    for at in range(len(raw)):
        flip(manifest, at)
        assert step_of(tmp_path) == 1 or _same_meaning(manifest.read_bytes(), raw)
        manifest.write_bytes(raw)


def _same_meaning(one: bytes, other: bytes) -> bool:
    return bool(json.loads(one) == json.loads(other))


def test_foreign_names_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step-000009").write_text("a file")
    for name in ("step-9", "step-abc", "other"):
        (tmp_path / name).mkdir()
    write(tmp_path, 1, 2, 3)
    assert step_of(tmp_path) == 3
    assert {"step-000009", "step-9", "step-abc", "other"} < {*listed(tmp_path)}


def test_checkpoint_of_another_run_is_passed_over_and_never_deleted(tmp_path: Path) -> None:
    mine = Ring(2, owner={"run": "mine"})
    write(tmp_path, 5, run="mine", ring=mine)
    write(tmp_path, 2, 9, run="theirs", ring=Ring(2, owner={"run": "theirs"}))
    assert step_of(tmp_path) == 9
    assert step_of(tmp_path, run="mine") == 5
    assert step_of(tmp_path, run="nobody's") is None
    write(tmp_path, 6, 7, run="mine", ring=mine)
    assert steps_in(tmp_path) == [2, 9, 6, 7]
    assert step_of(tmp_path, run="mine") == 7


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    checkpoint.write(tmp_path, {"other": torch.ones(3)}, {"step": 2}, TWO)
    loaded = checkpoint.read(tmp_path)
    assert loaded is not None
    assert loaded[0].keys() == {"other"}
    assert steps_in(tmp_path) == [2, 2]


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Files of this process end at ``size`` bytes, as on a disk that is full there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 100, 4096])
def test_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, room: int) -> None:
    write(tmp_path, 1)
    with disk_of(room), pytest.raises(StorageError, match="no checkpoint"):
        write(tmp_path, 2)
    assert steps_in(tmp_path) == [1]
    assert step_of(tmp_path) == 1
    write(tmp_path, 2)
    assert step_of(tmp_path) == 2


@pytest.mark.parametrize("call", range(4))
def test_failing_flush_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    write(tmp_path, 1)
    calls = iter(range(10))

    def fsync(_: int) -> None:
        if next(calls) == call:
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        with pytest.raises(StorageError, match="Input/output"):
            write(tmp_path, 2)
    assert step_of(tmp_path) in ((1,) if call < 3 else (1, 2))
    assert not [name for name in listed(tmp_path) if name.startswith(".")]


class Killed(BaseException):
    """Stands for kill -9: nothing of ours runs any more."""


@pytest.mark.parametrize("call", range(40))
def test_killed_at_any_call_leaves_a_whole_one_and_the_next_write_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Every call that reaches the disk, one after the other, is the last one."""
    write(tmp_path, 1, 2)
    count = iter(range(1000))
    with monkeypatch.context() as patch:
        for owner, name in (
            (os, "fsync"),
            (os, "open"),
            (Path, "mkdir"),
            (Path, "rename"),
            (Path, "open"),
            (shutil, "rmtree"),
        ):
            patch.setattr(owner, name, dying(getattr(owner, name), count, call))
        try:
            write(tmp_path, 3)
        except Killed:
            finished = False
        else:
            finished = True
    assert step_of(tmp_path) in ((3,) if finished else (2, 3))
    write(tmp_path, 4)
    assert step_of(tmp_path) == 4
    assert len(steps_in(tmp_path)) == 2
    assert not list(tmp_path.glob(".*"))
    assert not finished or call > 10


def dying(real: Callable[..., Any], count: Iterator[int], call: int) -> Callable[..., Any]:
    def act(*arguments: Any, **options: Any) -> Any:
        if next(count) == call:
            raise Killed
        return real(*arguments, **options)

    return act


def test_the_oldest_go_where_the_disk_is_full_and_the_newest_never(tmp_path: Path) -> None:
    with tmpfs(tmp_path, 1 << 20) as folder:
        large = {"a": torch.zeros(70_000)}  # 280 kB: three have room
        ring = Ring(9)
        for step in (1, 2, 3):
            assert checkpoint.write(folder, large, {"step": step}, ring).dropped == 0
        assert checkpoint.write(folder, large, {"step": 4}, ring).dropped == 1
        assert steps_in(folder) == [2, 3, 4]
        with (place(folder, 4) / checkpoint.TENSORS).open("r+b") as file:
            file.write(b"rot")
        with pytest.raises(StorageError, match="No space left"):
            checkpoint.write(folder, {"a": torch.zeros(250_000)}, {"step": 5}, ring)
        assert steps_in(folder) == [3, 4]
        loaded = checkpoint.read(folder)
        assert loaded is not None
        assert loaded[1] == {"step": 3}
        assert checkpoint.write(folder, large, {"step": 6}, ring).dropped == 0
        assert steps_in(folder) == [3, 4, 6]


def test_a_read_only_disk_is_an_error_and_what_is_there_can_be_read(tmp_path: Path) -> None:
    with tmpfs(tmp_path, 1 << 20) as folder:
        write(folder, 1)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(StorageError, match="Read-only"):
            write(folder, 2)
        assert step_of(folder) == 1


@contextmanager
def tmpfs(parent: Path, size: int) -> Iterator[Path]:
    """A disk of ``size`` bytes."""
    folder = parent / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    try:
        made = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if made.returncode:
        pytest.skip(f"no small disk can be made here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)  # tensors map their file


@pytest.mark.parametrize("name", ["EDQUOT", "ENOSPC"])
def test_a_quota_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write(tmp_path, 1, 2, 3, ring=Ring(5))
    tries = iter(range(9))

    def refusing(*_: Any) -> Any:
        next(tries)
        raise OSError(getattr(errno, name), "no room")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_tensors", refusing)
        with pytest.raises(StorageError, match="no room"):
            write(tmp_path, 4, ring=Ring(5))
    assert next(tries) == 3
    assert steps_in(tmp_path) == [3]


@pytest.mark.parametrize("prefix", [".writing-", ".dropping-"])
def test_litter_of_a_killed_writer_is_cleared(tmp_path: Path, prefix: str) -> None:
    write(tmp_path, 1)
    place(tmp_path, 1).rename(tmp_path / f"{prefix}000001-step-000001")
    assert checkpoint.read(tmp_path) is None
    write(tmp_path, 2)
    assert steps_in(tmp_path) == [2]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="no checkpoint"):
        write(tmp_path / "file", 1)
