"""A state that a joiner has begun to take, on its disk: a restart in the middle goes on from there.

Every column is written when it has come, then a line that says which one it is, whose, its hash and
the run's training time. What does not hash as its line says is not believed, so nothing is flushed:
a crash costs the columns that it tore. What is too old by then is taken anew, as a whole checkpoint
would be (``firststate``).
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError

from swarmnet.errors import PayloadError
from swarmnet.train.parcel import Parcel
from swarmnet.wire.messages import Count, Seconds

LONGEST_S = 1e9
"""What a status may say; a line that says more could not be read back."""
COLUMNS, JOURNAL = "columns.bin", "journal.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keep:
    """Where to keep what has come of a state of ``run``, and until when it is of use.

    ``furthest_s``: the training time behind the furthest state that a donor has now, in seconds;
    what was taken more than ``stale_s`` away from that is not used any more.
    """

    folder: Path
    run: str
    furthest_s: float
    stale_s: float


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    chunk: Count
    donor: str
    hash: str
    elapsed_s: Seconds


class Halfway:
    """The columns of one parcel on disk. ``had``: those of an earlier life, and who brought them.

    A disk that refuses is not asked again: then a restart begins anew, and joining goes on.
    """

    def __init__(self, keep: Keep, parcel: Parcel) -> None:
        self._keep = keep
        self._parcel = parcel
        self._about = {"run": keep.run, "index": parcel.index}
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._dead = False
        self.had: dict[int, str] = {}
        if not self._load():
            self._try(self._begin)

    def came(self, chunk: int, donor: str, body: memoryview) -> None:
        """A sound column of ``donor`` is in its place. From any thread."""
        digest = blake3(body).hexdigest()
        elapsed_s = min(self._keep.furthest_s + time.monotonic() - self._began, LONGEST_S)
        said = _Line(chunk=chunk, donor=donor, hash=digest, elapsed_s=elapsed_s)

        def write() -> None:
            with (self._keep.folder / COLUMNS).open("r+b") as file:
                file.seek(self._offset(chunk))
                file.write(body)
            self._write(said.model_dump())

        self._try(write)

    def void(self, donor: str) -> None:
        """Nothing that ``donor`` brought counts any more."""
        self._try(lambda: self._write({"void": donor}))

    # ---- inside ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        shutil.rmtree(self._keep.folder, ignore_errors=True)
        self._keep.folder.mkdir(parents=True)
        (self._keep.folder / COLUMNS).touch()
        self._write(self._about)

    def _load(self) -> bool:
        """Put what is of use into the parcel; whether this folder is of the same run and model."""
        try:
            text = (self._keep.folder / JOURNAL).read_text("utf-8")
            about, *lines = filter(None, text.splitlines())
            columns = (self._keep.folder / COLUMNS).open("rb")
        except (OSError, ValueError):
            return False
        with columns:
            if _read(about) != self._about:
                return False
            for chunk, line in self._lines(lines).items():
                columns.seek(self._offset(chunk))
                body = bytearray(columns.read(self._parcel.size(chunk)))
                if blake3(body).hexdigest() == line.hash and self._place(chunk, body):
                    self.had[chunk] = line.donor
        return True

    def _lines(self, lines: list[str]) -> dict[int, _Line]:
        """The last word on each column; a torn line says nothing."""
        last: dict[int, _Line] = {}
        for said in filter(None, map(_read, lines)):
            if "void" in said:
                last = {c: line for c, line in last.items() if line.donor != said["void"]}
                continue
            try:
                line = _Line.model_validate(said)
            except ValidationError:
                continue
            # What is ahead of everybody is of another attempt at the same run.
            apart_s = abs(line.elapsed_s - self._keep.furthest_s)
            if line.chunk < self._parcel.chunks and apart_s <= self._keep.stale_s:
                last[line.chunk] = line
        return last

    def _place(self, chunk: int, body: bytearray) -> bool:
        try:
            self._parcel.place(chunk, memoryview(body))
        except PayloadError:
            return False
        return True

    def _offset(self, chunk: int) -> int:
        return chunk * self._parcel.size(0)

    def _write(self, said: Mapping[str, Any]) -> None:
        """On a line of its own, whatever a crash left of the one before."""
        with (self._keep.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(said, separators=(",", ":")))

    def _try(self, write: Callable[[], None]) -> None:
        with self._lock:
            if self._dead:
                return
            try:
                write()
            except OSError as error:
                _log.warning("a restart would have to take the whole state again: %s", error)
                self._dead = True
                shutil.rmtree(self._keep.folder, ignore_errors=True)


def _read(line: str) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
