"""Who is missing, and when to try again: a pure function of looks at a clock.

A path that fails may come back at any moment, and nobody tells. So whoever is wanted and not there
is tried again, after pauses that grow and differ by chance, a few at a time. The first one that is
back is news: the same cut may have ended for all, so all are tried at once. A direct path that is
missed while a relay carries for it is tried after longer pauses, each by itself.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

AT_ONCE = 4


@dataclass(frozen=True)
class Pauses:
    """``before_s`` the first try, then ``first_s``, doubled up to ``longest_s``.

    ``news``: one that is back makes all others due.
    """

    before_s: float
    first_s: float
    longest_s: float
    news: bool


LOST = Pauses(before_s=0.0, first_s=5.0, longest_s=30.0, news=True)


@dataclass
class _Absence:
    due: float
    pause_s: float


@dataclass(frozen=True)
class Look:
    """``due`` are to be tried now; ``returned`` were there, were missing, and are there again."""

    due: tuple[str, ...]
    returned: tuple[str, ...]


class Absences:
    """Fed with looks; ``luck`` spreads the tries of many peers that lost each other at once."""

    def __init__(self, luck: random.Random, pauses: Pauses = LOST) -> None:
        self._luck = luck
        self._pauses = pauses
        self._absent: dict[str, _Absence] = {}
        self._present: set[str] = set()
        self._missed: set[str] = set()

    def look(self, wanted: Iterable[str], present: Collection[str], now: float) -> Look:
        """``wanted`` in order of interest. ``now`` in monotonic seconds."""
        wanted = list(dict.fromkeys(wanted))
        found = [peer for peer in self._absent if peer in present]
        returned = tuple(peer for peer in found if peer in self._missed)
        self._missed -= set(found)
        self._missed |= {p for p in wanted if p in self._present and p not in present}
        self._missed &= set(wanted)
        self._present = {peer for peer in wanted if peer in present}
        pauses = self._pauses
        fresh = now + pauses.before_s, pauses.first_s
        absent = {p: self._absent.get(p, _Absence(*fresh)) for p in wanted if p not in present}
        self._absent = absent
        if found and pauses.news:
            for absence in absent.values():
                absence.due, absence.pause_s = now, pauses.first_s
        due = sorted((p for p in absent if absent[p].due <= now), key=lambda p: absent[p].due)
        for peer in due[:AT_ONCE]:
            absence = absent[peer]
            absence.due = now + absence.pause_s * self._luck.uniform(0.75, 1.25)
            absence.pause_s = min(2 * absence.pause_s, pauses.longest_s)
        return Look(tuple(due[:AT_ONCE]), returned)
