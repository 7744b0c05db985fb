"""Blocks of an epoch's shuffled windows, each for one live peer; nobody deals them out.

An epoch is a permutation of all windows, cut into blocks of ``block``; whose a block is follows
from hashes that every peer computes alike (``_sweep.py``). While nobody comes or goes each window
is read once an epoch; what a change of members moves is the share of whoever came or went.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from swarmnet.config import Section
from swarmnet.sharing import BlockRead, Ground, Position, Span, View
from swarmnet.sharing._order import permuted, word
from swarmnet.sharing._sweep import Sweep
from swarmnet.sharing._windows import checked

LEAST_BLOCKS = 256
"""A short text has smaller blocks, so that shares are fair."""
MAX_FINISHED = 4096
"""Blocks that wait to be asked for."""


class Rendezvous:
    """The default: an epoch of the text, shared by rendezvous hashing over the live view."""

    class Config(Section):
        block: int = Field(64, gt=0, description="windows that belong together; shorter texts less")

    def __init__(self, config: Config, ground: Ground) -> None:
        self.config = config
        self._ground = checked(ground)
        # One window less than fit leaves room to begin each epoch at another token.
        self._windows = max(1, (ground.tokens - ground.length) // ground.length)
        self._block = max(1, min(config.block, self._windows // LEAST_BLOCKS))
        self._blocks = -(-self._windows // self._block)
        self._sweep = Sweep(ground.me, ground.seed, self._blocks)
        self._place = -1
        self._taken = 0
        """Windows of the block at ``_place`` that were read."""
        self._finished: list[BlockRead] = []

    def next(self, count: int, view: View) -> NDArray[np.int64]:
        self._sweep.see(view)
        parts = []
        while count:
            if self._place < 0:
                self._place, self._taken = self._sweep.next(), 0
            part = self._take(count)
            count -= part.size
            parts.append(part)
        return np.concatenate(parts)

    def _take(self, most: int) -> NDArray[np.int64]:
        """Offsets of at most so many windows of the block in hand."""
        epoch, block = divmod(self._place, self._blocks)
        first = block * self._block
        size = min(self._block, self._windows - first)
        stop = min(self._taken + most, size)
        places = np.arange(first + self._taken, first + stop)
        self._taken = stop
        if stop == size:
            self._place = -1
            if len(self._finished) < MAX_FINISHED:
                self._finished.append(BlockRead(epoch, block, self._blocks))
        key = word(self._ground.seed, epoch)
        slack = self._ground.tokens - 1 - self._windows * self._ground.length
        shift = key % min(self._ground.length, slack + 1)
        return permuted(places, self._windows, key) * self._ground.length + shift

    def finished(self) -> list[BlockRead]:
        done, self._finished = self._finished, []
        return done

    @property
    def span(self) -> Span:
        """Who dies has not read the block in hand to its end: its heirs read it whole."""
        at = self._sweep.at
        return Span(self._sweep.since, at - (0 <= self._place == at - 1))

    def catch_up(self, place: int) -> None:
        if place > self._sweep.at:
            self._sweep.follow(place)
            self._place = -1

    def position(self) -> Position:
        return self._sweep.position() | {"place": self._place, "taken": self._taken}

    def resume(self, position: Position) -> None:
        self._sweep.resume(position)
        self._place, self._taken = int(position["place"]), int(position["taken"])
