from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from swarmnet.errors import StorageError
from swarmnet.train import checkpoint


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


def write(folder: Path, *steps: int, run: str = "r") -> int:
    return [checkpoint.write(folder, state(n), {"step": n, "run": run}) for n in steps][-1]


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


def test_round_trip_with_meta_and_size(tmp_path: Path) -> None:
    meta = {"step": 7, "nested": {"list": [1, 2.5, None]}, "text": "\u00e9"}
    size = checkpoint.write(tmp_path / "new" / "place", state(7), meta)
    loaded = checkpoint.read(tmp_path / "new" / "place")
    assert loaded is not None
    assert loaded[1] == meta
    assert loaded[0]["step"].shape == ()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert size == sum(path.stat().st_size for path in files)


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.read(tmp_path) is None
    assert checkpoint.read(tmp_path / "absent") is None


def test_newest_two_are_kept(tmp_path: Path) -> None:
    write(tmp_path, 1, 5, 1_000_000, 1_000_001)
    assert listed(tmp_path) == ["step-1000000", "step-1000001"]
    assert step_of(tmp_path) == 1_000_001


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
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_gives_way_to_the_older(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 1, 2)
    DAMAGES[damage](tmp_path / "step-000002")
    assert step_of(tmp_path) == 1
    DAMAGES[damage](tmp_path / "step-000001")
    assert checkpoint.read(tmp_path) is None
    write(tmp_path, 2)
    assert step_of(tmp_path) == 2


def test_any_flipped_bit_of_the_manifest_is_seen(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    manifest = tmp_path / "step-000002" / checkpoint.MANIFEST
    raw = manifest.read_bytes()
    for place in range(len(raw)):
        flip(manifest, place)
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


def test_checkpoint_of_another_run_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 5, run="mine")
    write(tmp_path, 9, run="theirs")
    assert step_of(tmp_path) == 9
    assert step_of(tmp_path, run="mine") == 5
    assert step_of(tmp_path, run="nobody's") is None
    write(tmp_path, 6, 7, run="mine")
    assert listed(tmp_path) == ["step-000006", "step-000007", "step-000009"]
    assert step_of(tmp_path, run="mine") == 7


def test_writing_a_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    checkpoint.write(tmp_path, {"other": torch.ones(3)}, {"step": 2})
    loaded = checkpoint.read(tmp_path)
    assert loaded is not None
    assert loaded[0].keys() == {"other"}
    assert listed(tmp_path) == ["step-000001", "step-000002"]


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    write(tmp_path, 2)
    (tmp_path / "step-000002").rename(tmp_path / "step-000002~")
    assert step_of(tmp_path) == 2
    write(tmp_path, 2)
    assert listed(tmp_path) == ["step-000002"]


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
    assert listed(tmp_path) == ["step-000001"]
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
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        with pytest.raises(StorageError, match="No space left"):
            write(tmp_path, 2)
    assert step_of(tmp_path) in ((1,) if call < 3 else (1, 2))
    assert not [name for name in listed(tmp_path) if name.startswith(".")]


def test_litter_of_a_killed_writer_is_cleared(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "step-000001").rename(tmp_path / ".writing-step-000001")
    assert checkpoint.read(tmp_path) is None
    write(tmp_path, 2)
    assert listed(tmp_path) == ["step-000002"]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="no checkpoint"):
        write(tmp_path / "file", 1)
