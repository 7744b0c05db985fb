"""A trainer's place in the text over its restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from peers import bookmark
from peers.bookmark import FILE, Bookmark

NOWHERE = Bookmark(run="ab", peer="me", corpus="cd")
HERE = NOWHERE.model_copy(
    update={"begun": 7, "tokens": 700, "elapsed_s": 3.5, "reading": {"place": 4, "of": [1]}}
)


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    assert bookmark.find(tmp_path, NOWHERE) == NOWHERE
    bookmark.keep(tmp_path, HERE)
    assert bookmark.find(tmp_path, NOWHERE) == HERE


@pytest.mark.parametrize("other", ["run", "peer", "corpus"])
def test_that_of_another_run_key_or_text_means_nothing_here(
    tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    bookmark.keep(tmp_path, HERE)
    elsewhere = NOWHERE.model_copy(update={other: "xx"})
    assert bookmark.find(tmp_path, elsewhere) == elsewhere
    assert "another run, key or text" in caplog.text


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"run": "ab"}', b"\xff\xfe"])
def test_a_torn_one_is_said_and_begun_anew(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(torn)
    assert bookmark.find(tmp_path, NOWHERE) == NOWHERE
    assert "cannot be used" in caplog.text


def test_a_disk_that_refuses_costs_the_place_only(tmp_path: Path) -> None:
    bookmark.keep(tmp_path / "missing", HERE)
    assert bookmark.find(tmp_path / "missing", NOWHERE) == NOWHERE
