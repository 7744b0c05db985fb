"""A peer's reading of the text beside others: who they are, and what it tells the log of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from peers.link import Link
from swarmnet.events import BlocksRead
from swarmnet.sharing import BlockRead, View

LOOK_S = 1.0


class FellowReaders:
    """Who of one role reads too, looked up once a second at most."""

    def __init__(self, link: Link, role: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._role = role
        self._clock = clock
        self._view: View = {}
        self._until = float("-inf")

    def view(self) -> View:
        now = self._clock()
        if now >= self._until:
            self._view, self._until = self._link.readers(self._role), now + LOOK_S
        return self._view


def furthest(view: View) -> int:
    """Where to begin to read beside others: what they have come past was read.

    Of three or more the second, so that nobody alone can send newcomers astray.
    """
    places = sorted((span.read for span in view.values()), reverse=True)
    return places[1 if len(places) > 2 else 0] if places else 0


def told(finished: Iterable[BlockRead]) -> Iterator[BlocksRead]:
    """What a batch has read to its end, as events."""
    for (epoch, of), reads in groupby(sorted(finished), lambda read: (read.epoch, read.of)):
        yield BlocksRead(epoch, [read.block for read in reads], of)
