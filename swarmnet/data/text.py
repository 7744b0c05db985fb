"""Local text: one file, or a folder of ``.txt``, ``.md``, ``.py`` and ``.jsonl`` files.

A run names it by content hash and the peer file says where it lies, so a run file holds no paths
and all peers know that they read the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from swarmnet import content
from swarmnet.config import Section
from swarmnet.data._corpus import HELD_OUT, corpus_hash, held_out_names, joined
from swarmnet.errors import DataError
from swarmnet.model import Tokenizer

SUFFIXES = (".txt", ".md", ".py", ".jsonl")
FILES_TO_SPLIT = 20


class Text:
    """A local file or folder; see ``Corpus``. In JSON-lines files the field ``text`` counts.

    A folder of 20 files or more is split by file; with fewer, the last 5 % of each file are held
    out.
    """

    class Config(Section):
        hash: str = Field(pattern=content.PATTERN, description="content hash of file or folder")

    def __init__(self, config: Config, tokenizer: Tokenizer, paths: Mapping[str, Path]) -> None:
        """Raises DataError when the text is missing, empty, malformed or not the run's."""
        self.config = config
        files = _found(config.hash, paths)
        if len(files) >= FILES_TO_SPLIT:
            aside = held_out_names(files)
            kept = (path for name, path in files.items() if name not in aside)
            held = (path for name, path in files.items() if name in aside)
            self.train = joined(_all_documents(kept), tokenizer)
            self.held_out = joined(_all_documents(held), tokenizer)
        else:
            self.train, self.held_out = _cut(files, tokenizer)
        if self.held_out.size < 2:
            raise DataError(f"{paths[config.hash]}: too little text to hold out 5 % of it")
        self.hash = corpus_hash(self.train, self.held_out)


def content_hash(path: Path) -> str:
    """What a run file names the text at ``path`` by: 32 hex digits.

    Raises:
        DataError: nothing is there, or nothing of the kinds that are read.
    """
    _text_files(path)
    try:
        return content.content_hash(path, SUFFIXES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _text_files(path: Path) -> dict[str, Path]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = content.content_files(path, SUFFIXES)
    if not any(file.stat().st_size for file in files.values()):
        raise DataError(f"{path}: holds no text; {', '.join(SUFFIXES)} files are read")
    return files


def _found(digest: str, paths: Mapping[str, Path]) -> dict[str, Path]:
    if digest not in paths:
        raise DataError(f"text {digest}: name its place under [texts] in the peer file")
    path = paths[digest]
    actual = content_hash(path)
    if actual != digest:
        raise DataError(f"{path}: is another text ({actual}) than the run's ({digest})")
    return _text_files(path)


def _all_documents(files: Iterator[Path]) -> Iterator[str | bytes]:
    for file in files:
        yield from _documents(file)


def _documents(file: Path) -> Iterator[str | bytes]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if file.suffix.lower() != ".jsonl":
        yield raw
        return
    for number, line in enumerate(raw.splitlines(), start=1):
        if line.strip():
            yield _field(line, f"{file}:{number}")


def _field(line: bytes, place: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON: {error}") from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{place}: has no field 'text' with a string in it")
    return text


def _cut(files: Mapping[str, Path], tokenizer: Tokenizer) -> tuple[NDArray[Any], NDArray[Any]]:
    """Every file's first 95 % and last 5 %, with an end token where a file was cut."""
    parts = []
    for file in files.values():
        ids = joined(_documents(file), tokenizer)
        edges = (0, ids.size - int(ids.size * HELD_OUT), ids.size)
        parts.append([ids[start:stop] for start, stop in pairwise(edges)])
    end = np.array([tokenizer.end], dtype=parts[0][0].dtype)
    train = [piece for first, _ in parts for piece in (first, end)]
    return np.concatenate(train), np.concatenate([last for _, last in parts])
