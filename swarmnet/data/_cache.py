"""Tokenised text on this machine's disk: made once, mapped by every process that reads it.

A folder is named by the text's content hash and the tokenizer; it appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmnet.data._corpus import corpus_hash
from swarmnet.data._ids import Ids, Kind, Split, mapped
from swarmnet.errors import StorageError

FORMAT = 1
MANIFEST = "corpus.json"
NAMES = ("train", "held_out")


def cached(folder: Path, name: str, kind: Kind, write: Callable[[Ids, Ids], None]) -> Split:
    """The corpus ``name`` in ``folder``; made by ``write`` if it is not there or not whole.

    Raises:
        StorageError: the disk refused. Also whatever ``write`` raises.
    """
    place = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Processes of one machine begin together: one makes it, the others wait for it.
        with _locked(folder / f"{name}.lock"):
            return _opened(place, kind) or _made(place, kind, write)
    except OSError as error:
        raise StorageError(f"{place}: the tokenised text cannot be kept: {error}") from error


def _made(place: Path, kind: Kind, write: Callable[[Ids, Ids], None]) -> Split:
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    partial.mkdir()
    try:
        sizes = _written(partial, kind, write)
        train, held_out = (mapped(partial / n, s, kind) for n, s in sizes.items())
        manifest = {"format": FORMAT, "hash": corpus_hash(train, held_out), "sizes": sizes}
        (partial / MANIFEST).write_text(json.dumps(manifest))
        partial.rename(place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Split(train, held_out, str(manifest["hash"]))


def _written(folder: Path, kind: Kind, write: Callable[[Ids, Ids], None]) -> dict[str, int]:
    with (folder / NAMES[0]).open("w+b") as first, (folder / NAMES[1]).open("w+b") as second:
        both = Ids(first, kind), Ids(second, kind)
        write(*both)
        for file in (first, second):
            file.flush()
            os.fsync(file.fileno())
    return {name: ids.size for name, ids in zip(NAMES, both, strict=True)}


def _opened(place: Path, kind: Kind) -> Split | None:
    """What an earlier start left, or None when it is absent, torn or of another format."""
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            return None
        train, held_out = (mapped(place / n, int(manifest["sizes"][n]), kind) for n in NAMES)
        return Split(train, held_out, str(manifest["hash"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
