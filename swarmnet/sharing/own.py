"""Everybody reads all of its own text: for text that others do not have, or a worker alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swarmnet.config import Section
from swarmnet.sharing import ALONE, BlockRead, Ground, Position, Span, View
from swarmnet.sharing.rendezvous import Rendezvous


class Own:
    """Epochs of a shuffled text without regard to who else reads."""

    class Config(Section):
        pass

    def __init__(self, config: Config, ground: Ground) -> None:
        self.config = config
        self._reading = Rendezvous(Rendezvous.Config(), ground)

    def next(self, count: int, view: View) -> NDArray[np.int64]:
        return self._reading.next(count, ALONE)

    def finished(self) -> list[BlockRead]:
        """None that count for others: their text is another one."""
        self._reading.finished()
        return []

    @property
    def span(self) -> Span:
        return Span()

    def catch_up(self, place: int) -> None:
        """Another's place is one in another text."""

    def position(self) -> Position:
        return self._reading.position()

    def resume(self, position: Position) -> None:
        self._reading.resume(position)
