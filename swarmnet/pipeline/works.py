"""What a stage computes, seen from the pipeline: bytes in, bytes out, handles in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swarmnet.errors import PayloadError

Handle = Any
"""A forward under way: this package never looks inside."""
NOTHING = memoryview(b"")


@dataclass(frozen=True)
class Entry:
    """One microbatch at the door: (rows, length + 1) int32 ids, and the boundary's bytes."""

    sample: int
    rows: int
    length: int
    ids: memoryview
    received: memoryview = NOTHING


@dataclass(frozen=True)
class Exit:
    """What became of an entry. ``loss`` is the tail's sum in nats; it has no ``output``."""

    handle: Handle
    version: int
    output: memoryview
    loss: float
    tokens: int


@dataclass(frozen=True)
class Gradient:
    """The gradient of a forward's output as bytes; the tail makes its own.

    ``counts``: the weight gradient is wanted too, and follows with ``weigh``.
    """

    sample: int
    handle: Handle
    entry: Entry
    payload: memoryview
    counts: bool


@dataclass(frozen=True)
class Answer:
    """The gradient of the input as bytes, none at the first stage.

    ``recomputed``: the forward's own parameters were gone, so newer ones were used knowingly.
    """

    payload: memoryview
    recomputed: bool = False


class Works(Protocol):
    """Runs in the one compute thread of a stage peer, one call at a time."""

    @property
    def version(self) -> int:
        """Of the parameters that the next forward uses; the stage's step number."""
        ...

    def forward(self, entries: Sequence[Entry]) -> list[Exit | PayloadError]:
        """Entries of one shape, as one batch where they are sound."""
        ...

    def backward(self, gradients: Sequence[Gradient]) -> list[Answer | PayloadError]: ...

    def weigh(self) -> Sequence[int]:
        """Add the weight gradients that wait longest to the sums: these samples count from now."""
        ...

    def drop(self, handle: Handle) -> None:
        """This forward comes to nothing: free its graph. Any thread."""
        ...
