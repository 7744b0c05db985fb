"""The shell of a stage peer: letters to the book, its tasks to the compute thread, back again.

It lives in the network's event loop. What is decided is decided in ``stagebook``; here is only the
order of calls. One task computes at a time; whoever needs the compute thread for something else (a
step, a copy of the state) takes the lane between two tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from swarmnet.errors import MessageError, PayloadError
from swarmnet.exchange.transport import Transport
from swarmnet.pipeline.acts import Act, Drop, Say
from swarmnet.pipeline.post import Post
from swarmnet.pipeline.record import Record, Task
from swarmnet.pipeline.stagebook import StageBook
from swarmnet.pipeline.works import Works
from swarmnet.wire.letters import Backward, Fates, Forget, Forward, Inquire, Resume
from swarmnet.wire.messages import Message

Lane = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments in the compute thread."""


@dataclass(frozen=True)
class Limits:
    """The largest microbatch of the run, and its payload at this stage's two doors."""

    rows: int
    length: int
    forward_bytes: int
    backward_bytes: int

    def room(self, letter: Message) -> int:
        """The most bytes that may come with it. Raises MessageError at a larger microbatch."""
        if isinstance(letter, Forward):
            if letter.rows > self.rows or letter.length > self.length:
                raise MessageError("a microbatch larger than the run's")
            return 4 * letter.rows * (letter.length + 1) + self.forward_bytes
        return self.backward_bytes if isinstance(letter, Backward) else 0


class Extra(Protocol):
    """Letters that concern the stage and no sample: tallies."""

    def __call__(self, peer: str, letter: Message) -> None: ...


class StageService:
    """Serves one stage. ``refusals`` counts what could not be right, by the peer that sent it."""

    def __init__(
        self, transport: Transport, book: StageBook, works: Works, lane: Lane, limits: Limits
    ) -> None:
        self.book = book
        self.post = Post(transport, self)
        self.serving = True
        self.counted: Callable[[], None] = lambda: None
        """Called when more samples count."""
        self.between: Callable[[], Awaitable[None]] = _nothing
        """Awaited between two tasks: nothing else is computed for samples meanwhile."""
        self.extra: Extra = _nobody
        self.refusals: dict[str, int] = {}
        self._works = works
        self._run_in_lane = lane
        self._lane = asyncio.Lock()
        self._limits = limits
        self._woken = asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    async def open(self) -> None:
        await self.post.open()

    async def run(self) -> None:
        """Compute what the book says, until cancelled."""
        while True:
            self._woken.clear()
            if not await self._work():
                await self._woken.wait()
            await self.between()

    async def exclusively(self, work: Callable[[], Any]) -> Any:
        """``work`` in the compute thread, between two tasks."""
        async with self._lane:
            return await self._run_in_lane(work)

    # ---- letters (Inbox) --------------------------------------------------------------------

    def room(self, letter: Message) -> int:
        return self._limits.room(letter)

    def letter(self, peer: str, letter: Message, payload: memoryview) -> None:
        if not self.serving:
            return
        now = self._clock()
        match letter:
            case Forward():
                self.perform(self.book.on_forward(peer, letter, payload, now))
            case Backward():
                self.perform(self.book.on_backward(peer, letter, payload, now))
            case Resume():
                self.perform(self.book.on_resume(peer, letter))
            case Forget():
                self.perform(self.book.on_forget(peer, letter))
            case Inquire():
                self.perform(self.book.on_inquire(peer, letter, self._works.version))
            case Fates():
                raise MessageError("fates are told to trainers")
            case _:
                self.extra(peer, letter)
        self._woken.set()

    def lost(self, peer: str) -> None:
        self.perform(self.book.lost(peer))

    def perform(self, acts: Iterable[Act]) -> None:
        """Whatever was decided may have made room for work."""
        for act in acts:
            self._woken.set()
            match act:
                case Say(peer, letter, payload):
                    self.post.send(peer, letter, payload)
                case Drop(handle):
                    self._works.drop(handle)

    # ---- work -------------------------------------------------------------------------------

    async def _work(self) -> bool:
        """One task; False when there is none, or nothing can come of it now."""
        async with self._lane:
            found = self.book.next_task()
            if found is None:
                return False
            task, samples = found
            match task:
                case Task.FORWARD:
                    await self._forward(samples)
                case Task.BACKWARD:
                    await self._backward(samples)
                case Task.WEIGH:
                    return await self._weigh()
        return True

    async def _forward(self, samples: list[int]) -> None:
        records = [self.book.record(sample) for sample in samples]
        began = self._clock()
        exits = await self._run_in_lane(self._works.forward, [r.entry for r in records])
        now = self._clock()
        for sample, record, done in zip(samples, records, exits, strict=True):
            record.busy_s = (now - began) / len(samples)
            record.waited_s = began - record.since
            if isinstance(done, PayloadError):
                self._refuse(sample, record.sender(self.book.place))
            else:
                self.perform(self.book.forwarded(sample, done, now))

    async def _backward(self, samples: list[int]) -> None:
        gradients = [self.book.gradient(sample) for sample in samples]
        records = [self.book.record(sample) for sample in samples]
        began = self._clock()
        answers = await self._run_in_lane(self._works.backward, gradients)
        now = self._clock()
        for sample, record, answer in zip(samples, records, answers, strict=True):
            record.busy_s += (now - began) / len(samples)
            if isinstance(answer, PayloadError):
                self._sour(sample, record)
            else:
                self.perform(self.book.turned(sample, answer, now))

    async def _weigh(self) -> bool:
        """Nothing is left to weigh when all was dropped and the book has not been told yet."""
        samples = await self._run_in_lane(self._works.weigh)
        self.perform(self.book.weighed(samples))
        self.counted()
        return bool(samples)

    def _sour(self, sample: int, record: Record) -> None:
        place = self.book.place
        if place.last:  # its own gradient, hence the input
            self._refuse(sample, record.sender(place))
            return
        self._note(record.receiver(place))
        self.perform(self.book.soured(sample))

    def _refuse(self, sample: int, sender: str) -> None:
        self._note(sender)
        self.perform(self.book.refused(sample))

    def _note(self, sender: str) -> None:
        self.refusals[sender] = self.refusals.get(sender, 0) + 1


async def _nothing() -> None:
    return


def _nobody(peer: str, letter: Message) -> None:
    raise MessageError(f"{letter.kind.name} is for nobody here")
