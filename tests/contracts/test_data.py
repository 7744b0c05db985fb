"""Whoever supplies text must split it alike on every peer; batches must come back by position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from swarmnet import registry
from swarmnet.config import Batch, Choice, RunConfig
from swarmnet.data import Batches, Corpus
from swarmnet.data.stdlib import source_files
from swarmnet.data.text import content_hash
from swarmnet.errors import DataError
from swarmnet.model._tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
END = TOKENIZER.end


def read(path: Path) -> Corpus:
    digest = content_hash(path)
    return Choice(name="text", hash=digest).build("data", TOKENIZER, {digest: path})


def stdlib(max_bytes: int) -> Corpus:
    return Choice(name="stdlib", max_bytes=max_bytes).build("data", TOKENIZER, {})


def make(name: str, folder: Path) -> Corpus:
    if name == "stdlib":
        return stdlib(100_000)
    (folder / "text.txt").write_bytes(bytes(range(256)) * 20)
    if name == "private":
        return Choice(name="private").build("data", TOKENIZER, {"private": folder}, None)
    return read(folder)


@pytest.mark.parametrize("name", registry.names("data"))
def test_every_corpus_keeps_the_contract(name: str, tmp_path: Path) -> None:
    corpus = make(name, tmp_path)
    again = make(name, tmp_path)
    assert isinstance(corpus, Corpus)
    for ids in (corpus.train, corpus.held_out):
        assert ids.ndim == 1
        assert ids.dtype == np.uint16
        assert ids.max() <= END
    assert np.array_equal(corpus.train, again.train)
    assert corpus.hash == again.hash
    assert len(bytes.fromhex(corpus.hash)) == 16
    share = corpus.held_out.size / (corpus.train.size + corpus.held_out.size)
    assert share == pytest.approx(0.05, abs=0.01)


def test_stdlib_reads_packages_and_no_tests() -> None:
    import sysconfig

    names = source_files(Path(sysconfig.get_path("stdlib"))).keys()
    assert {"json/decoder.py", "random.py", "asyncio/base_events.py"} <= set(names)
    assert not [name for name in names if {"test", "tests", "site-packages"} & {*name.split("/")}]
    assert not [name for name in names if name.startswith("_sysconfigdata")]
    assert list(names) == sorted(names)


def test_stdlib_whole_holds_out_five_percent_or_so() -> None:
    corpus = stdlib(0)
    total = corpus.train.size + corpus.held_out.size
    assert total > 5_000_000
    assert 0.03 < corpus.held_out.size / total < 0.08
    assert (corpus.held_out == END).sum() > 10
    assert corpus.hash != stdlib(100_000).hash


def test_interpreter_without_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without its sources"):
        source_files(tmp_path)


def test_large_folder_is_split_by_file(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / f"{i:02d}.md").write_text(f"file {i:02d}.")
    corpus = read(tmp_path)
    train, held = (TOKENIZER.decode(ids).split("<|end|>")[:-1] for ids in _parts(corpus))
    assert len(train) + len(held) == 60
    assert 1 <= len(held) <= 10
    assert not {*train} & {*held}
    assert sorted(train) == train


def _parts(corpus: Corpus) -> tuple[list[int], list[int]]:
    return corpus.train.tolist(), corpus.held_out.tolist()


def test_small_folder_is_cut_at_the_end_of_each_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 99)
    (tmp_path / "b.py").write_text("b" * 199)
    (tmp_path / "ignored.bin").write_bytes(b"x" * 500)
    corpus = read(tmp_path)
    assert corpus.train.tolist() == [97] * 95 + [END] + [98] * 190 + [END]
    assert corpus.held_out.tolist() == [97] * 4 + [END] + [98] * 9 + [END]


def test_json_lines_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    lines = [json.dumps({"text": f"caf\u00e9 {i}", "other": 1}) for i in range(50)]
    path.write_text("\n".join([*lines, "", ""]))
    corpus = read(path)
    whole = TOKENIZER.decode([*corpus.train.tolist()[:-1], *corpus.held_out.tolist()])
    assert whole == "".join(f"caf\u00e9 {i}<|end|>" for i in range(50))


@pytest.mark.parametrize(
    ("line", "message"), [("{", r":2: not JSON"), ("[]", r":2: has no"), ('{"text": 3}', "string")]
)
def test_malformed_json_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "good"}\n' + line)
    with pytest.raises(DataError, match=message):
        read(path)


def test_text_whose_place_is_not_named() -> None:
    with pytest.raises(DataError, match=r"\[texts\]"):
        Choice(name="text", hash="0" * 32).build("data", TOKENIZER, {})


def test_text_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        content_hash(tmp_path / "absent")
    with pytest.raises(DataError, match="no such file"):
        Choice(name="text", hash="0" * 32).build("data", TOKENIZER, {"0" * 32: tmp_path / "absent"})


@pytest.mark.parametrize("content", [{}, {"a.txt": ""}, {"a.bin": "x"}, {".hidden.txt": "x"}])
def test_folder_without_text(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="holds no text"):
        content_hash(tmp_path)


def test_too_little_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    with pytest.raises(DataError, match="too little text"):
        read(tmp_path)


def test_text_that_changed_since_it_was_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first" * 100)
    digest = content_hash(tmp_path)
    (tmp_path / "a.txt").write_text("other" * 100)
    with pytest.raises(DataError, match="another text"):
        Choice(name="text", hash=digest).build("data", TOKENIZER, {digest: tmp_path})


def test_content_hash_follows_content_not_place(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "a.txt").write_text("text")
    (tmp_path / "two" / "__pycache__").mkdir()
    (tmp_path / "two" / "__pycache__" / "x.py").write_text("litter")
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")
    file = tmp_path / "one" / "deep" / "a.txt"
    before = content_hash(file)
    assert content_hash(file.rename(tmp_path / "elsewhere.txt")) == before
    (tmp_path / "two" / "deep" / "a.txt").rename(tmp_path / "two" / "deep" / "b.txt")
    (tmp_path / "one" / "deep" / "a.txt").write_text("text")
    assert content_hash(tmp_path / "one") != content_hash(tmp_path / "two")


IDS = np.arange(5000, dtype=np.uint16)
BATCH = Batch(sequences=4, length=16)


def batches(ids: NDArray[Any], sharing: str = "rendezvous", peer: str = "a") -> Batches:
    model = {"name": "causal_lm", "architecture": "llama", "config": {}}
    table = {"schema": 1, "name": "test", "seed": 1, "batch": BATCH, "model": model}
    target = {"tokens": 1, "minutes": 1}
    return Batches(
        ids, RunConfig.model_validate({**table, "target": target, "sharing": sharing}), peer
    )


@pytest.mark.parametrize("sharing", registry.names("sharing"))
def test_batches_are_windows_and_go_on_from_a_position(sharing: str) -> None:
    stream = batches(IDS, sharing)
    seen = []
    for index in range(50):
        if index == 37:
            kept = json.loads(json.dumps(stream.position()))
        seen.append(stream.next())
    for tokens in seen:
        assert tokens.shape == (4, 17)
        assert tokens.dtype == torch.int64
        assert torch.equal(tokens - tokens[:, :1], torch.arange(17).expand(4, 17))
    again = batches(IDS, sharing)
    again.resume(kept)
    assert all(torch.equal(again.next(), tokens) for tokens in seen[37:])
    assert len({int(tokens[0, 0]) for tokens in seen}) > 40


def test_independent_batches_are_what_they_were_before_there_were_others() -> None:
    """Runs of earlier versions can be repeated."""
    first = batches(IDS, "independent").next()
    assert first[:, 0].tolist() == [656, 4360, 4117, 2141]
    starts = {int(s) for stream in [batches(IDS[:19], "independent")] for _ in range(40)
              for s in stream.next()[:, 0]}  # fmt: skip
    assert starts == {0, 1, 2}


def test_less_than_a_window_is_refused() -> None:
    assert torch.equal(batches(IDS[:17]).next()[0], torch.arange(17))
    with pytest.raises(DataError, match="window needs 17"):
        batches(IDS[:16])
