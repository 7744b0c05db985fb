"""Who is slow: a table of senders and receivers, read by row, by column and by cell.

Every payload is one measurement of one cell. A slow sender makes its row slow, a slow receiver
its column, a bad link one cell. All is relative to the median of the table, because links over
the internet are not alike; and it is a statistic to show, never a reason to shut anybody out.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

HISTORY = 16
MAX_CELLS = 4096
TIMES = 3.0
"""Nobody is blamed for less: load alone makes a machine three times slower now and then."""
LEAST_S = 0.05
"""A payload or a start that takes less is as good as instant."""
LEAST_CELLS = 2
"""A row or a column of one cell is a link."""
LEAST_SEEN = 3

Cell = tuple[str, str]
"""Source, destination."""
ENDS: tuple[tuple[Literal["sender", "receiver"], int], ...] = (("sender", 0), ("receiver", 1))


@dataclass(frozen=True)
class Verdict:
    """One finding. ``times`` the median of all, over so many ``links``."""

    kind: Literal["sender", "receiver", "link", "start", "silent"]
    peer: str
    times: float
    links: int
    other: str = ""
    """The receiving end of a slow link."""

    def say(self, name: Callable[[str], str] = str) -> str:
        """In words, with the names that ``name`` gives to peer ids."""
        peer, often = name(self.peer), f"{self.times:.1f} times the median"
        over = f"over its {self.links} links"
        match self.kind:
            case "sender":
                return f"{peer} sends slowly: {often} {over}"
            case "receiver":
                return f"{peer} receives slowly: {often} {over}"
            case "link":
                return f"the link from {peer} to {name(self.other)} is slow: {often}"
            case "start":
                return f"{peer} starts late: {often} {over}"
            case "silent":
                return f"{peer} does not answer: {self.times:.0f} calls in a row"


@dataclass
class _Seen:
    """What was measured of one cell: seconds per byte, and seconds before the first byte."""

    paces: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    starts: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))


class Blame:
    """The table. Medians are low ones: more than half of the figures must be slow."""

    def __init__(self) -> None:
        self._cells: OrderedDict[Cell, _Seen] = OrderedDict()
        self._unanswered: OrderedDict[str, int] = OrderedDict()

    # ---- what was measured ------------------------------------------------------------------

    def moved(self, source: str, destination: str, nbytes: int, seconds: float) -> None:
        """``destination`` received a payload of ``source`` in so many seconds."""
        if nbytes > 0:
            self._seen(source, destination).paces.append(max(seconds, LEAST_S) / nbytes)

    def started(self, source: str, destination: str, seconds: float) -> None:
        """So long after its yes ``source`` had nothing to send to ``destination`` yet."""
        self._seen(source, destination).starts.append(max(seconds, LEAST_S))

    def called(self, peer: str, *, answered: bool) -> None:
        """Somebody called ``peer``."""
        self._unanswered[peer] = 0 if answered else self._unanswered.get(peer, 0) + 1
        self._unanswered.move_to_end(peer)
        if len(self._unanswered) > MAX_CELLS:
            self._unanswered.popitem(last=False)

    # ---- what follows -----------------------------------------------------------------------

    @property
    def measured(self) -> int:
        """Cells with a payload."""
        return len(self._relative("paces"))

    def sends(self) -> dict[str, float]:
        """How many times the median each peer takes to send: its row."""
        return _scores(_lines(self._relative("paces"), 0))

    def receives(self) -> dict[str, float]:
        """How many times the median each peer takes to receive: its column."""
        return _scores(_lines(self._relative("paces"), 1))

    def starts(self) -> dict[str, float]:
        """How many times the median each peer takes until it begins to send."""
        return _scores(_lines(self._relative("starts"), 0))

    def silent(self) -> dict[str, int]:
        """Calls in a row that each peer has left without an answer."""
        return {peer: calls for peer, calls in self._unanswered.items() if calls}

    def verdicts(self) -> list[Verdict]:
        """All that stands out, the silent first, then rows and columns, then single links."""
        silent = [
            Verdict("silent", peer, calls, 0)
            for peer, calls in self.silent().items()
            if calls >= LEAST_SEEN
        ]
        paces = self._relative("paces")
        slow: list[Verdict] = []
        while (worst := self._worst(paces)) is not None:
            slow.append(worst)
            for cell in list(paces):
                if cell[worst.kind == "receiver"] == worst.peer:
                    paces[cell] /= worst.times
        slow += [
            Verdict("link", source, times, 1, destination)
            for (source, destination), times in sorted(paces.items())
            if times > TIMES and len(self._cells[source, destination].paces) >= LEAST_SEEN
        ]
        return silent + slow + self._late_starters()

    def _worst(self, paces: Mapping[Cell, float]) -> Verdict | None:
        """The row or column to blame first: the one whose cells agree most, then the slowest.

        What it explains is taken out before the next is looked for, so that two slow senders in
        a small swarm do not make everybody a slow receiver.
        """
        found: list[tuple[float, float, Verdict]] = []
        for kind, end in ENDS:
            for peer, cells in _lines(paces, end).items():
                times = statistics.median_low(cells.values())
                if times > TIMES and self._enough(cells, "paces"):
                    agreed = sum(value > TIMES for value in cells.values()) / len(cells)
                    found.append((agreed, times, Verdict(kind, peer, times, len(cells))))
        return max(found, key=lambda item: item[:2])[2] if found else None

    def _late_starters(self) -> list[Verdict]:
        rows = _lines(self._relative("starts"), 0)
        return [
            Verdict("start", peer, statistics.median_low(cells.values()), len(cells))
            for peer, cells in sorted(rows.items())
            if statistics.median_low(cells.values()) > TIMES and self._enough(cells, "starts")
        ]

    def _enough(self, cells: Iterable[Cell], what: str) -> bool:
        seen = [len(getattr(self._cells[cell], what)) for cell in cells]
        return len(seen) >= LEAST_CELLS and sum(seen) >= LEAST_SEEN

    def _relative(self, what: str) -> dict[Cell, float]:
        """The median of each cell over the median of all cells."""
        medians = {
            cell: statistics.median_low(values)
            for cell, seen in self._cells.items()
            if (values := getattr(seen, what))
        }
        usual = statistics.median_low(medians.values()) if medians else 1.0
        return {cell: value / usual for cell, value in medians.items()}

    def _seen(self, source: str, destination: str) -> _Seen:
        """Bounded: the cell that was not used for longest is forgotten."""
        cell = (source, destination)
        seen = self._cells.setdefault(cell, _Seen())
        self._cells.move_to_end(cell)
        if len(self._cells) > MAX_CELLS:
            self._cells.popitem(last=False)
        return seen


def _lines(relative: Mapping[Cell, float], end: int) -> dict[str, dict[Cell, float]]:
    """The table's rows (``end`` 0) or columns (1), by peer."""
    lines: dict[str, dict[Cell, float]] = {}
    for cell, times in relative.items():
        lines.setdefault(cell[end], {})[cell] = times
    return lines


def _scores(lines: Mapping[str, Mapping[Cell, float]]) -> dict[str, float]:
    return {peer: statistics.median_low(cells.values()) for peer, cells in lines.items()}
