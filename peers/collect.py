"""Gathers the event files of a run's processes while they grow and when they are done.

Every process of a run appends to its own ``peers/<name>/events.jsonl`` below the run's folder; who
hurts them on purpose writes it into ``faults.jsonl`` beside.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from peers.story import Record
from swarmnet.events import Event

# One poll reads at most this much of one file; a line that does not fit is nobody's event.
MAX_READ_BYTES = 4 << 20
FAULTS = "faults.jsonl"
"""What was done to the processes of a run on purpose, inside its folder."""


class Tail:
    """Follows all event files below ``folder``; files may appear and grow at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._offsets: dict[Path, int] = {}

    def poll(self) -> list[Record]:
        """Events written since the last poll, in time order.

        A torn last line is left for a later poll; a complete line that is no event is skipped.
        """
        found: list[Record] = []
        for path in [*sorted(self.folder.glob("peers/*/events.jsonl")), self.folder / FAULTS]:
            found += [event for line in self._lines(path) if (event := parse(line)) is not None]
        return sorted(found, key=_time)

    def _lines(self, path: Path) -> list[bytes]:
        offset = self._offsets.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                chunk = file.read(MAX_READ_BYTES)
        except OSError:
            return []
        whole = chunk.rfind(b"\n") + 1
        if not whole and len(chunk) == MAX_READ_BYTES:
            whole = len(chunk)
        self._offsets[path] = offset + whole
        return chunk[:whole].splitlines()


def parse(line: bytes) -> Record | None:
    """The event in one line of a file, or nothing if it is not a complete known event.

    A killed process leaves a torn line, and the same peer back again writes on right behind it:
    so the event may start late in the line.
    """
    begin = max(line.rfind(b'{"time": '), 0)
    try:
        record = json.loads(line[begin:])
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("event"), str):
        return None
    kind = Event.types.get(record["event"])
    stamp = record.get("time")
    if kind is None or not isinstance(stamp, int | float) or not math.isfinite(stamp):
        return None
    needed = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return record if isinstance(record.get("peer"), str) and needed <= record.keys() else None


def merge(folder: Path, out: Path) -> list[Record]:
    """Write the events of all processes of ``folder``, sorted by time, to ``out``; return them."""
    tail = Tail(folder)
    events: list[Record] = []
    while more := tail.poll():
        events += more
    events.sort(key=_time)
    part = out.with_name(out.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    part.replace(out)
    return events


def _time(event: Record) -> float:
    return float(event["time"])
