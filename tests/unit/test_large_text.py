"""Text that does not fit into memory: tokenised by the piece, kept whole or not at all, mapped."""

from __future__ import annotations

import json
import mmap
import random
import tracemalloc
from collections import namedtuple
from pathlib import Path

import numpy as np
import psutil
import pytest

from swarmnet.config import Choice, RunConfig
from swarmnet.data import Batches, Corpus
from swarmnet.data._files import PIECE_BYTES, _pieces
from swarmnet.data.text import content_hash
from swarmnet.errors import DataError, StorageError
from swarmnet.model._tokenizers import ByteTokenizer

MIB = 1 << 20


def read(path: Path, cache: Path | None, digest: str = "") -> Corpus:
    digest = digest or content_hash(path)
    return Choice(name="text", hash=digest).build("data", ByteTokenizer(), {digest: path}, cache)


def some_text(path: Path, size: int) -> Path:
    source = random.Random(0)
    lines = [source.randbytes(60).hex() + "\n" for _ in range(100)]
    with path.open("w") as file:
        while file.tell() < size:
            file.write("".join(source.choices(lines, k=100)))
    return path


def base(array: object) -> object:
    """What an array's memory really is."""
    while (under := getattr(array, "base", None)) is not None:
        array = under
    return array


@pytest.mark.parametrize("files", [3, 25])
def test_the_cache_holds_what_memory_would(tmp_path: Path, files: int) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(files):
        some_text(folder / f"{i}.txt", 3000 * i)
    lines = [json.dumps({"text": f"caf\u00e9 {i}"}) for i in range(50)]
    (folder / "more.jsonl").write_text("\n".join(lines))
    one, other = read(folder, None), read(folder, tmp_path / "cache")
    assert np.array_equal(one.train, other.train)
    assert np.array_equal(one.held_out, other.held_out)
    assert one.hash == other.hash


def test_a_text_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = some_text(tmp_path / "large.txt", 48 * MIB)
    digest = content_hash(path)
    tracemalloc.start()
    try:
        corpus = read(path, tmp_path / "cache", digest)
        run = {"schema": 1, "name": "large", "target": {"tokens": 1, "minutes": 1}}
        batch = {"sequences": 8, "length": 128}
        config = RunConfig.model_validate({**run, "batch": batch, "model": "causal_lm"})
        batches = Batches(corpus.train, config, "me")
        for _ in range(50):
            batches.next()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert corpus.train.nbytes > 90 * MIB
    assert peak < 24 * MIB
    assert isinstance(base(corpus.train), mmap.mmap)


def test_what_is_kept_is_not_read_again(tmp_path: Path) -> None:
    path = some_text(tmp_path / "a.txt", 5000)
    first = read(path, tmp_path / "cache")
    digest = content_hash(path)
    path.unlink()
    again = read(path, tmp_path / "cache", digest)
    assert np.array_equal(first.train, again.train)
    assert first.hash == again.hash


@pytest.mark.parametrize("hurt", ["train", "held_out", "corpus.json"])
def test_what_is_torn_is_made_anew(tmp_path: Path, hurt: str) -> None:
    path, cache = some_text(tmp_path / "a.txt", 5000), tmp_path / "cache"
    first = read(path, cache)
    (place,) = (p for p in cache.iterdir() if p.is_dir())
    torn = place / hurt
    torn.write_bytes(torn.read_bytes()[:-3])
    (cache / f"{place.name}.partial").mkdir()
    again = read(path, cache)
    assert again.hash == first.hash
    assert [p for p in cache.iterdir() if p.is_dir()] == [place]


def test_nothing_is_left_of_a_text_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\nbad')
    with pytest.raises(DataError, match=r":2: not JSON"):
        read(path, tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]


def test_a_cache_that_cannot_be_written_is_the_disks_fault(tmp_path: Path) -> None:
    path = some_text(tmp_path / "a.txt", 5000)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match="cannot be kept"):
        read(path, tmp_path / "cache")


def test_a_text_larger_than_memory_needs_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = some_text(tmp_path / "a.txt", 5000)
    little = namedtuple("little", "available")(1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    with pytest.raises(DataError, match="cache = "):
        read(path, None)
    assert read(path, tmp_path / "cache").train.size > 1000


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u20ac", "\U0001f600", "ab\n"])
def test_pieces_end_with_lines_or_at_least_with_characters(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "a.txt"
    text = "." + letter * (2 * PIECE_BYTES // len(letter.encode()) + 5)
    path.write_text(text)
    pieces = list(_pieces(path))
    assert b"".join(pieces).decode() == text
    assert len(pieces) > 1
    for piece in pieces:
        piece.decode()
        assert len(piece) < PIECE_BYTES + 4


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\x80\xff" * PIECE_BYTES)
    assert b"".join(_pieces(path)) == path.read_bytes()
