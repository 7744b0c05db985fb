"""The trainer as hub: every boundary tensor passes through it, as in SWARM's reference code.

Kept beside the direct way for comparison: two more tensors cross the wire at each cut and way. The
trips decide as ever and their letters are translated here. Each stage peer is told a route on which
all others are the trainer, so it sends output and gradient here; from here they go to whoever the
trip has picked. An input is kept until its trip is whole, so that a peer that fails is replaced by
sending the same input to another one. The gradient goes to the peer that made the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from swarmnet.errors import MessageError
from swarmnet.pipeline.acts import Say
from swarmnet.pipeline.service import Limits
from swarmnet.wire.letters import Backward, Forward, Receipt, Resume
from swarmnet.wire.messages import Message


@dataclass(frozen=True)
class _Output:
    """What a stage made of a sample, and the letter that it came with."""

    letter: Forward
    payload: memoryview


@dataclass
class _Passage:
    """One open trip: the newest attempt's letter with its whole route, and all outputs so far."""

    letter: Forward
    ids: memoryview
    outputs: dict[int, _Output] = field(default_factory=dict)


class Hub:
    """Holds the bytes of one trainer's open trips: window x cuts x the boundary's size at most."""

    def __init__(self, me: str, limits: Limits, is_open: Callable[[int], bool]) -> None:
        """``is_open``: whether the trip of a sample is still to be counted somewhere."""
        self._me = me
        self._limits = limits
        self._is_open = is_open
        self._passages: dict[int, _Passage] = {}

    @property
    def nbytes(self) -> int:
        """Of all outputs that are kept now."""
        return sum(
            len(output.payload)
            for passage in self._passages.values()
            for output in passage.outputs.values()
        )

    def room(self, letter: Message) -> int:
        """Raises MessageError: larger than a microbatch of the run."""
        return self._limits.room(letter)

    # ---- what the trips say -------------------------------------------------------------------

    def dispatch(self, say: Say) -> Say | Receipt:
        """The letter that goes out for one of the trips' own; a receipt for them if none can."""
        match say.letter:
            case Forward():
                self._sweep()
                [ids] = say.payload
                self._passages[say.letter.sample] = _Passage(say.letter, ids)
                return Say(say.peer, self._told(say.letter, 0), say.payload)
            case Resume():
                return self._resume(say.letter)
        return say

    def _resume(self, resume: Resume) -> Say | Receipt:
        """The input of the stage after the one that is named: here it is, or it never came."""
        passage = self._passages.get(resume.sample)
        if passage is None or resume.stage not in passage.outputs:
            return Receipt(
                sample=resume.sample, attempt=resume.attempt, stage=resume.stage, what="unknown"
            )
        newest = {"attempt": resume.attempt, "route": resume.route, "mask": resume.mask}
        passage.letter = passage.letter.model_copy(update=newest)
        passage.outputs = {k: kept for k, kept in passage.outputs.items() if k <= resume.stage}
        return self._onward(passage, resume.stage + 1)

    # ---- what stage peers say -----------------------------------------------------------------

    def forward(self, peer: str, letter: Forward, payload: memoryview) -> list[Say]:
        """The output of the stage before ``letter.stage``. Raises MessageError: not from there.

        One that is out of date is dropped: whoever serves the stage now will send its own.
        """
        passage = self._passages.get(letter.sample)
        if passage is None or letter.attempt != passage.letter.attempt:
            return []
        route, sent = passage.letter.route, passage.letter
        if not 0 < letter.stage < len(route) or len(payload) < len(passage.ids):
            raise MessageError("an output that goes nowhere, or without its microbatch")
        if peer != route[letter.stage - 1]:
            return []
        if (letter.rows, letter.length) != (sent.rows, sent.length):
            raise MessageError("an output of another microbatch")
        output = payload[len(passage.ids) :]
        passage.outputs[letter.stage - 1] = _Output(letter, output)
        return [self._onward(passage, letter.stage)]

    def backward(self, peer: str, letter: Backward, payload: memoryview) -> list[Say]:
        """The gradient by the output of ``letter.stage``, from who serves the stage after it."""
        passage = self._passages.get(letter.sample)
        if passage is None:
            return []
        route = passage.letter.route
        if letter.stage + 1 >= len(route):
            raise MessageError("a gradient from behind the last stage")
        if peer != route[letter.stage + 1]:
            return []
        told = letter.model_copy(update={"attempt": passage.letter.attempt})
        return [Say(route[letter.stage], told, (payload,))]

    # ---- inside -------------------------------------------------------------------------------

    def _onward(self, passage: _Passage, stage: int) -> Say:
        output = passage.outputs[stage - 1]
        letter = self._told(passage.letter, stage).model_copy(
            update={
                "version": output.letter.version,
                "steps": output.letter.steps,
                "nbytes": len(passage.ids) + len(output.payload),
            }
        )
        return Say(passage.letter.route[stage], letter, (passage.ids, output.payload))

    def _told(self, letter: Forward, stage: int) -> Forward:
        """As the peer of ``stage`` hears it: before and behind it there is only the trainer."""
        route = tuple(
            peer if place == stage else self._me for place, peer in enumerate(letter.route)
        )
        return letter.model_copy(update={"stage": stage, "route": route})

    def _sweep(self) -> None:
        """What is whole needs nothing any more; should it come again, it begins with its ids."""
        for sample in [sample for sample in self._passages if not self._is_open(sample)]:
            del self._passages[sample]
