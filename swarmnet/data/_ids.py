"""Vectors of token ids that grow: in memory, or in a file that is mapped when it is whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = type[np.unsignedinteger[Any]]
MOVED_AT_ONCE = 1 << 22


class Split(NamedTuple):
    """A corpus: (n,) and (m,) ids, and what names the two; see ``Corpus``."""

    train: NDArray[Any]
    held_out: NDArray[Any]
    hash: str


class Ids:
    """Ids that are only added to, on a file or on memory that looks like one."""

    def __init__(self, file: BinaryIO, kind: Kind) -> None:
        self.kind = kind
        self.size = 0
        self._file = file

    def add(self, ids: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(ids, self.kind).data.cast("B"))
        self.size += ids.size

    def move_tail(self, count: int, to: Ids) -> None:
        """The last ``count`` ids go to the end of ``to``."""
        width = np.dtype(self.kind).itemsize
        begin = (self.size - count) * width
        self._file.seek(begin)
        for start in range(0, count, MOVED_AT_ONCE):
            raw = self._file.read(width * min(MOVED_AT_ONCE, count - start))
            to.add(np.frombuffer(raw, self.kind))
        self._file.seek(begin)
        self._file.truncate()
        self.size -= count

    def in_memory(self) -> NDArray[Any]:
        """What was added, if the file is memory."""
        assert isinstance(self._file, io.BytesIO)
        return np.frombuffer(self._file.getbuffer(), self.kind)


def mapped(path: Path, size: int, kind: Kind) -> NDArray[Any]:
    """``size`` ids in the file at ``path``, read by the page when they are looked at.

    Raises:
        OSError: cannot be read. ValueError: the file has another size.
    """
    if path.stat().st_size != size * np.dtype(kind).itemsize:
        raise ValueError(f"{path} is not whole")
    return np.asarray(np.memmap(path, kind, mode="r")) if size else np.empty(0, kind)
