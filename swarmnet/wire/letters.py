"""What trainers and stage peers of a pipeline say: letters, each on its own, answered or not.

A letter with ``nbytes`` is followed by so many bytes in PART frames. A *sample* is one microbatch:
no other one of any trainer has its id. A *trip* is its way through the stages; an *attempt* counts
the tries to complete it. ``mask`` has a bit for each stage that shall count the sample.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swarmnet.wire.frame import Kind
from swarmnet.wire.messages import Count, Message, PeerId, Seconds

MAX_STAGES = 256
MAX_SAMPLES = 512
"""Ids in one letter; who has more to say writes several."""
Sample = Annotated[int, Field(ge=0, lt=2**63)]
Samples = Annotated[tuple[Sample, ...], Field(max_length=MAX_SAMPLES)]
Attempt = Annotated[int, Field(ge=0, lt=2**31)]
StageNumber = Annotated[int, Field(ge=0, lt=MAX_STAGES)]
Route = Annotated[tuple[PeerId, ...], Field(min_length=1, max_length=MAX_STAGES)]
Steps = Annotated[tuple[Count, ...], Field(max_length=MAX_STAGES)]
Extent = Annotated[int, Field(gt=0, lt=2**20)]


class Forward(Message):
    """One microbatch at the door of ``stage``: token ids, and what the stage before made of them.

    ``route`` names who serves each stage in this attempt; a neighbour there may be the trainer
    itself. ``version``: of the parameters that made the payload; the gradient's letter names it.
    ``steps``: newest known step of every stage. Payload: (rows, length + 1) int32 ids, then the
    boundary's bytes.
    """

    kind = Kind.FORWARD
    sample: Sample
    attempt: Attempt
    stage: StageNumber
    trainer: PeerId
    route: Route
    mask: Annotated[bytes, Field(max_length=MAX_STAGES // 8)]
    rows: Extent
    length: Extent
    version: Count = 0
    steps: Steps = ()
    nbytes: Count = 0


class Backward(Message):
    """The gradient of the loss sum by the output of ``stage``, computed by ``version``."""

    kind = Kind.BACKWARD
    sample: Sample
    attempt: Attempt
    stage: StageNumber
    version: Count
    steps: Steps = ()
    nbytes: Count = 0


class Resume(Message):
    """A trainer's word to who holds the output of ``stage``: send it on along this route."""

    kind = Kind.RESUME
    sample: Sample
    attempt: Attempt
    stage: StageNumber
    route: Route
    mask: Annotated[bytes, Field(max_length=MAX_STAGES // 8)]


News = Literal[
    "forwarded", "answered", "counted", "busy", "refused", "soured", "unreached", "unknown"
]


class Receipt(Message):
    """What became of a sample at ``stage``, to its trainer.

    forwarded: the output is on its way. answered: the input's gradient is, and the sample does not
    count here. counted: its weight gradient is in. busy: ask again after ``retry_s``. refused: the
    letter of the stage before cannot be right. soured: the gradient of the stage after cannot be,
    the output is still here. unreached: the peer of this stage was lost, says the
    peer of the one before. unknown: nothing to resume. ``loss`` is the tail's sum over ``tokens``.
    """

    kind = Kind.RECEIPT
    sample: Sample
    attempt: Attempt
    stage: StageNumber
    what: News
    version: Count = 0
    loss: float = 0.0
    tokens: Count = 0
    busy_s: Seconds = 0.0
    waited_s: Seconds = 0.0
    retry_s: Seconds = 0.0


Fate = Literal["committed", "held", "void", "unknown"]


class Fates(Message):
    """What a peer of ``stage``, now at ``step``, knows of samples.

    committed: part of a step of this stage. held: counted by me, part of my next contribution.
    void: dropped by me before it was part of any. unknown: neither in my sums nor in any commit
    that I remember.
    """

    kind = Kind.FATES
    stage: StageNumber
    step: Count
    samples: Samples
    fates: Annotated[tuple[Fate, ...], Field(max_length=MAX_SAMPLES)]


class Forget(Message):
    """The trainer needs nothing of these any more: drop what is cached, and what still waits."""

    kind = Kind.FORGET
    samples: Samples


class Inquire(Message):
    """What became of these? Answered with Fates. ``let_go``: what is not counted yet never will be.

    A trainer says so to a peer before it turns to another one for the same sample.
    """

    kind = Kind.INQUIRE
    samples: Samples
    let_go: bool = False


def mask_bytes(stages: frozenset[int]) -> bytes:
    """The wire form of a set of stages."""
    return sum(1 << stage for stage in stages).to_bytes(MAX_STAGES // 8, "big").lstrip(b"\0")


def mask_stages(mask: bytes) -> frozenset[int]:
    """The set of stages that ``mask_bytes`` wrote."""
    bits = int.from_bytes(mask, "big")
    return frozenset(stage for stage in range(bits.bit_length()) if bits >> stage & 1)
