"""From files of any size to ids: read, tokenised and split piece by piece."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil

from swarmnet import content
from swarmnet.data._corpus import HELD_OUT, corpus_hash, held_out_names
from swarmnet.data._ids import Ids, Split
from swarmnet.errors import DataError
from swarmnet.model import Tokenizer, id_type

SUFFIXES = (".txt", ".md", ".py", ".jsonl")
FILES_TO_SPLIT = 20
PIECE_BYTES = 1 << 20
LONGEST_CHARACTER = 4


def text_files(path: Path) -> dict[str, Path]:
    """Relative name -> file, of the kinds that are read. Raises DataError when there is no text."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = content.content_files(path, SUFFIXES)
    if not any(file.stat().st_size for file in files.values()):
        raise DataError(f"{path}: holds no text; {', '.join(SUFFIXES)} files are read")
    return files


def content_hash(path: Path) -> str:
    """What a run file names the text at ``path`` by: 32 hex digits.

    Raises:
        DataError: nothing is there, or nothing of the kinds that are read.
    """
    text_files(path)
    try:
        return content.content_hash(path, SUFFIXES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_split(files: Mapping[str, Path], tokenizer: Tokenizer) -> Split:
    """The files' ids in memory. Raises DataError; also when memory will not do."""
    size = sum(file.stat().st_size for file in files.values())
    if size > psutil.virtual_memory().available:
        raise DataError(
            "the text is larger than memory: name a folder, cache = ..., in the peer file"
        )
    kind = id_type(tokenizer.vocab_size)
    train, held_out = Ids(io.BytesIO(), kind), Ids(io.BytesIO(), kind)
    write_split(files, tokenizer, train, held_out)
    ids = train.in_memory(), held_out.in_memory()
    return Split(*ids, corpus_hash(*ids))


def write_split(files: Mapping[str, Path], tokenizer: Tokenizer, train: Ids, held_out: Ids) -> None:
    """20 files or more are split by file; of fewer, the last 5 % of each are held out.

    Where a file was cut, an end token closes what is trained on. Raises DataError.
    """
    if len(files) >= FILES_TO_SPLIT:
        aside = held_out_names(files)
        for name, file in files.items():
            _encode(file, tokenizer, held_out if name in aside else train)
        return
    end = np.array([tokenizer.end], train.kind)
    for file in files.values():
        before = train.size
        _encode(file, tokenizer, train)
        train.move_tail(int((train.size - before) * HELD_OUT), held_out)
        train.add(end)


def _encode(file: Path, tokenizer: Tokenizer, to: Ids) -> None:
    """Every document of ``file``, each followed by the end token."""
    end = np.array([tokenizer.end], to.kind)
    try:
        if file.suffix.lower() == ".jsonl":
            for text in _fields(file):
                to.add(tokenizer.encode(text))
                to.add(end)
            return
        for piece in _pieces(file):
            to.add(tokenizer.encode(piece))
        to.add(end)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _pieces(file: Path) -> Iterator[bytes]:
    """About 1 MiB at a time, up to the end of a line where there is one, of a character else."""
    rest = b""
    with file.open("rb") as stream:
        while block := stream.read(PIECE_BYTES):
            rest += block
            cut = rest.rfind(b"\n") + 1 or _whole_characters(rest)
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _whole_characters(raw: bytes) -> int:
    """How many bytes of ``raw`` are certainly not cut within a character of UTF-8."""
    for back in range(1, min(LONGEST_CHARACTER, len(raw)) + 1):
        if raw[-back] >= 0xC0:
            return len(raw) - back
        if raw[-back] < 0x80:
            break
    return len(raw)


def _fields(file: Path) -> Iterator[str]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
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
