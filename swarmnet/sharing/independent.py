"""Windows drawn at random, by everybody for itself: needs no view, and reads some text twice.

After as many windows as the text holds, e^-1 of it, 37 %, was read by nobody.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from swarmnet.config import Section
from swarmnet.sharing import BlockRead, Ground, Position, Span, View
from swarmnet.sharing._windows import checked


class Independent:
    """A batch is a function of the run, the peer and the batch's index.

    The numbers come from a counter-based generator (Philox; Salmon et al. 2011) keyed by run seed
    and peer, with the index as counter.
    """

    class Config(Section):
        pass

    def __init__(self, config: Config, ground: Ground) -> None:
        self.config = config
        self._last = checked(ground).tokens - ground.length
        digest = hashlib.sha256(f"{ground.seed} {ground.me}".encode()).digest()
        self._key = int.from_bytes(digest[:16], "big")
        self._index = 0

    def next(self, count: int, view: View) -> NDArray[np.int64]:
        generator = np.random.Generator(np.random.Philox(key=self._key, counter=self._index << 128))
        self._index += 1
        return generator.integers(0, self._last, size=count)

    def finished(self) -> list[BlockRead]:
        return []

    @property
    def span(self) -> Span:
        return Span()

    def catch_up(self, place: int) -> None:
        """No place means anything here."""

    def position(self) -> Position:
        return {"index": self._index}

    def resume(self, position: Position) -> None:
        self._index = int(position["index"])
