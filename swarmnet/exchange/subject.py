"""What is averaged, seen from the exchange: a flat vector that travels as a sequence of parts.

Each part is encoded, sent, decoded and reduced by itself, so the work of a meeting overlaps with
its own transfer and happens in memory that is still warm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Vector = Any
"""Whatever the subject exchanges: this package never looks inside."""


@dataclass(frozen=True)
class Correction:
    """What a meeting adds to a solo step; the corrections of a group sum to zero.

    Where gradients are averaged there is no step without the group: then it is their mean.
    """

    vector: Vector
    distance: float
    """Root mean square of the difference between my payload and the others'."""


class Intake(Protocol):
    """What becomes of payloads. Parts come in any order, each once, from one thread."""

    def take(self, part: int, payloads: Mapping[str, memoryview]) -> None:
        """The others' payloads of this part: form this part's correction. Raises PayloadError."""
        ...

    def finish(self) -> Correction:
        """The whole correction; parts that were never formed stay zero."""
        ...


class Blend(Intake, Protocol):
    """The arithmetic of one meeting."""

    def fuse(self, part: int, payloads: Mapping[str, memoryview]) -> memoryview:
        """The others' payloads of this part -> the encoded mean of the group, mine included.

        Raises PayloadError.
        """
        ...

    def adopt(self, part: int, mean: memoryview) -> None:
        """Form this part's correction from the encoded mean. Raises PayloadError."""
        ...


class Parcel(Protocol):
    """What one side of a stream sends: a snapshot in encoded parts, on the exchange's side."""

    layout: str
    nbytes: int
    parts: int

    @property
    def quick(self) -> bool:
        """Reducing a part takes less than handing it to another thread."""
        ...

    @property
    def ready_made(self) -> bool:
        """Encoding costs nothing: the payload is the snapshot's own memory."""
        ...

    def part_nbytes(self, part: int) -> int:
        """Payload bytes of one part, at most ``PART_BYTES``; ``nbytes`` is their sum."""
        ...

    def encode(self, snapshot: Vector, part: int) -> memoryview:
        """My payload's part for this snapshot; the same bytes at every call. Any thread."""
        ...


class Cargo(Parcel, Protocol):
    """What one meeting averages."""

    whole: bool
    """A result must have all parts: where one cannot be formed there is none."""

    def blend(self, snapshot: Vector, me: str, works: Mapping[str, int]) -> Blend:
        """Begin a meeting's arithmetic. ``works``: each member's effort."""
        ...


class Legacy(Parcel, Protocol):
    """What a replica that leaves hands to another one: its work that nobody has yet.

    ``capture``, ``inherit`` and ``part_with`` run at a step boundary in the training thread.
    """

    def capture(self) -> Vector | None:
        """A copy of that work, as a displacement of the live weights; None when there is none."""
        ...

    def intake(self, leaver: int, heir: int) -> Intake:
        """Decode a leaver's payload, given the efforts of both, or my own when they are equal."""
        ...

    def inherit(self, displacement: Vector) -> None:
        """It is this replica's own work from now on: a part of its next outer step."""
        ...

    def part_with(self, displacement: Vector) -> None:
        """It is another one's work from now on."""
        ...


class Subject(Cargo, Protocol):
    """A replica as the exchange sees it.

    ``capture``, ``apply_met``, ``apply_late`` and ``apply_solo`` run at a step boundary in the
    training thread; the others on the exchange's side, beside running inner steps.
    """

    steps_alone: bool
    """Whether the outer rule moves the weights in a window without a partner."""

    @property
    def legacy(self) -> Legacy: ...

    def capture(self) -> Vector:
        """Copy the live weights into a snapshot buffer and return it.

        The buffer is another one than that of the last call: whoever still reads that one, in a
        meeting that came to nothing, reads what was sent.
        """
        ...

    def effort(self, steps: int, step_s: float) -> int:
        """What my payload weighs in a group, as told to its members: 0 to 2^32 - 1.

        ``steps``: inner steps behind its displacement; ``step_s``: seconds that one takes.
        """
        ...

    def apply_met(self, snapshot: Vector, correction: Vector) -> None:
        """The whole outer step of a meeting, as displacement of the live weights."""
        ...

    def apply_solo(self, snapshot: Vector) -> None:
        """The outer step of a window without a partner."""
        ...

    def apply_late(self, correction: Vector) -> None:
        """The correction of a meeting whose own part was applied earlier."""
        ...

    def enter_consensus(self) -> None:
        """From here on meetings are pure averages of the weights; ``layout`` changes with it."""
        ...
