"""Sharings: who reads which windows of the text when nobody knows how many read.

A text of n tokens is cut into windows of ``length`` tokens, each with the one that follows. A
sharing tells one peer which windows its next batch holds, given who else reads. It is a pure state
machine: the same text, seed and history of views give the same windows on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import NDArray

Position = dict[str, Any]
"""Where a peer is in its reading, as JSON can say it."""


@dataclass(frozen=True)
class Ground:
    """What is read, and by whom. ``tokens`` of the text, ``length`` of a window."""

    tokens: int
    length: int
    seed: int
    me: str


class Span(NamedTuple):
    """What a peer says of its reading: the place where it began, and the one it has come to.

    A place counts the blocks of all epochs in the order that all peers share.
    """

    since: int = 0
    read: int = 0


View = Mapping[str, Span]
"""Who else reads now; this peer itself may be in it or not."""
ALONE: View = MappingProxyType({})


class BlockRead(NamedTuple):
    """One block was read to its end. ``of``: blocks in an epoch."""

    epoch: int
    block: int
    of: int


@runtime_checkable
class Sharing(Protocol):
    """One peer's reading, built as ``Class(config, ground)``; raises DataError without a window."""

    def next(self, count: int, view: View) -> NDArray[Any]:
        """Where the next ``count`` windows begin: (count,) int64 token offsets."""
        ...

    def finished(self) -> list[BlockRead]:
        """Blocks read to their end since this was asked last; a sharing may know no blocks."""
        ...

    @property
    def span(self) -> Span:
        """What the others should know of this peer's reading."""
        ...

    def catch_up(self, place: int) -> None:
        """Others have come to ``place``: whoever comes, or comes back, behind it begins there."""
        ...

    def position(self) -> Position:
        """All that ``resume`` needs to go on with the very next window."""
        ...

    def resume(self, position: Position) -> None:
        """Go on from ``position``. Raises KeyError, TypeError or ValueError when it is unsound."""
        ...
