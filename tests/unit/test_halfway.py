"""What a joiner keeps on disk of a state that has not come whole yet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from peers.halfway import COLUMNS, JOURNAL, Halfway, Keep
from swarmnet.train.parcel import Parcel

CHUNKS = 4
PARAMETERS = 1_000_000


def tensors(fill: float) -> dict[str, Tensor]:
    return {name: torch.full((PARAMETERS,), fill) for name in ("theta", "phi")} | {
        "step": torch.tensor(fill)
    }


def keep(folder: Path, furthest_s: float = 100.0, run: str = "ab") -> Keep:
    return Keep(folder / "joining", run, furthest_s, stale_s=60.0)


def take(folder: Path, chunks: dict[int, str], at: float = 100.0) -> Parcel:
    """A joiner whose process ends when these columns have come from these donors."""
    theirs, mine = Parcel(tensors(1.0)), Parcel(tensors(0.0))
    halfway, buffer = Halfway(keep(folder, at), mine), theirs.buffer()
    for chunk, donor in chunks.items():
        body = theirs.column(chunk, buffer)
        mine.place(chunk, body)
        halfway.came(chunk, donor, body)
    return mine


def again(folder: Path, **changes: object) -> tuple[dict[int, str], Parcel]:
    mine = Parcel(tensors(0.0))
    return dict(Halfway(keep(folder, **changes), mine).had), mine  # type: ignore[arg-type]


def test_a_state_of_this_test_has_several_columns() -> None:
    assert Parcel(tensors(0.0)).chunks > CHUNKS


def test_what_came_before_is_there_after_a_restart(tmp_path: Path) -> None:
    before = take(tmp_path, {0: "a", 3: "b"})
    had, mine = again(tmp_path)
    assert had == {0: "a", 3: "b"}
    assert mine.hashes(0, mine.chunks) == before.hashes(0, before.chunks)


def test_a_third_start_has_what_the_first_two_took(tmp_path: Path) -> None:
    take(tmp_path, {0: "a"})
    take(tmp_path, {1: "b"})
    assert again(tmp_path)[0] == {0: "a", 1: "b"}


@pytest.mark.parametrize("changes", [{"run": "cd"}, {"furthest_s": 161.0}, {"furthest_s": 39.0}])
def test_another_run_an_old_state_or_one_of_another_attempt_begins_anew(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    take(tmp_path, {0: "a"})
    had, mine = again(tmp_path, **changes)
    assert had == {}
    assert not mine.tensors["theta"].any()


def test_another_model_begins_anew(tmp_path: Path) -> None:
    take(tmp_path, {0: "a"})
    other = Parcel({"theta": torch.zeros(PARAMETERS)})
    assert Halfway(keep(tmp_path), other).had == {}


def test_nothing_counts_of_a_donor_that_was_banned(tmp_path: Path) -> None:
    take(tmp_path, {0: "a", 1: "b"})
    Halfway(keep(tmp_path), Parcel(tensors(0.0))).void("a")
    assert again(tmp_path)[0] == {1: "b"}
    take(tmp_path, {0: "c"})
    assert again(tmp_path)[0] == {0: "c", 1: "b"}


@pytest.mark.parametrize("torn", [1, 20, 60])
def test_a_torn_line_costs_its_column_and_no_other(tmp_path: Path, torn: int) -> None:
    take(tmp_path, {0: "a", 1: "b"})
    journal = tmp_path / "joining" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-torn])
    assert again(tmp_path)[0] == {0: "a"}
    take(tmp_path, {2: "c"})
    assert again(tmp_path)[0] == {0: "a", 2: "c"}


def test_a_torn_or_flipped_column_is_not_believed(tmp_path: Path) -> None:
    take(tmp_path, {0: "a", 1: "b", 2: "c"})
    columns = tmp_path / "joining" / COLUMNS
    content = bytearray(columns.read_bytes())
    content[5] ^= 1
    columns.write_bytes(content[:-7])
    assert again(tmp_path)[0] == {1: "b"}


@pytest.mark.parametrize("line", ["{", "7", '{"chunk":-1}', '{"chunk":0,"donor":5}', "\0"])
def test_a_journal_of_nonsense_says_nothing(tmp_path: Path, line: str) -> None:
    take(tmp_path, {0: "a"})
    journal = tmp_path / "joining" / JOURNAL
    with journal.open("a") as file:
        file.write(f"\n{line}\n")
    assert again(tmp_path)[0] == {0: "a"}
    journal.write_text(line)
    assert again(tmp_path)[0] == {}


def test_a_disk_that_refuses_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "joining").write_text("a file where the folder should be")
    halfway = Halfway(keep(tmp_path), Parcel(tensors(0.0)))
    halfway.came(0, "a", memoryview(b"x"))
    halfway.void("a")
    assert halfway.had == {}
    assert len(caplog.records) == 1
