"""One meeting over one stream: performs what a pair machine says, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from swarmnet.errors import DeadlinePassed, LinkError, PeerFault, StreamCut
from swarmnet.exchange.links import Links
from swarmnet.exchange.pair import Action, Do, End, Machine, Offerer, Send
from swarmnet.exchange.timing import Timing
from swarmnet.exchange.transport import FrameStream
from swarmnet.wire import Frame, Kind


class Sendable(Protocol):
    """A payload in parts (``payload.Outgoing``)."""

    parts: int

    async def part(self, part: int) -> memoryview:
        """The encoded part, as soon as it exists."""
        ...


@dataclass(frozen=True)
class Hooks:
    """What the meeting means to its peer."""

    agreed: Callable[[], Sendable]
    """The meeting is on: what to send. Called once. Raises LinkError."""
    landed: Callable[[bytearray, int], None]
    """So many bytes of the partner's payload are there. Raises PayloadError."""
    verify: Callable[[], Awaitable[None]]
    """All of them are: decoded, checked, reduced. Raises PayloadError."""
    apply: Callable[[], None]


class Session:
    """Runs ``machine`` over ``stream`` until it has ended, whatever the network does.

    Nothing here raises LinkError or PeerFault: ``machine.end`` and ``.reason`` say how it went.
    """

    def __init__(
        self, stream: FrameStream, machine: Machine, hooks: Hooks, links: Links, timing: Timing
    ) -> None:
        self._stream = stream
        self._machine = machine
        self._hooks = hooks
        self._links = links
        self._outbox: asyncio.Queue[Frame | Sendable] = asyncio.Queue()
        self._sender: asyncio.Task[None] | None = None
        self._next: list[Action] | None = None
        self.timing = timing
        self.bytes_sent = 0
        self.bytes_received = 0
        self.cut = False
        """The stream ended under us, by the network or by the partner's own will."""
        self._deadline_s = links.deadline_s(stream.peer)
        self._now = asyncio.get_running_loop().time

    async def ask(self) -> bool:
        """An offerer's first words, until the partner has answered. True: ``run`` may go on.

        No snapshot is taken and nothing of a payload leaves before ``run``.
        """
        try:
            await self._guard(self._hear_answer())
        finally:
            if self._next is None or self._machine.end is not None:
                await self.withdraw("the exchange was cancelled")
        return self._machine.end is None

    async def run(self) -> None:
        """The whole meeting, or what follows after ``ask``."""
        try:
            await self._guard(self._meet())
        finally:
            await self.withdraw("the exchange was cancelled")

    async def withdraw(self, reason: str) -> None:
        """Close, whatever stage it is in; the machine hears ``reason`` if it has not decided."""
        self._machine.lost(reason)
        try:
            if self._sender is not None:
                self._sender.cancel()
                with suppress(asyncio.CancelledError, LinkError, PeerFault):
                    await self._sender
        finally:
            await self._stream.close()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (LinkError, PeerFault) as error:
            self._machine.lost(f"{type(error).__name__}: {error}")
            self.cut = isinstance(error, StreamCut)
            if isinstance(error, DeadlinePassed):
                self._links.learn(self._stream.peer, self.timing)

    async def _hear_answer(self) -> None:
        await self._perform(self._begin())
        deadline_s = self._links.answer_s(self._stream.peer)
        actions = self._machine.on_frame(await self._receive(deadline_s))
        if isinstance(self._machine, Offerer) and self._machine.held:
            deadline_s += self._machine.offer.patience_s
            actions = self._machine.on_frame(await self._receive(deadline_s))
        self._next = actions
        if self._machine.end is End.DECLINED:
            self._links.learn(self._stream.peer, self.timing)

    async def _meet(self) -> None:
        await self._perform(self._begin() if self._next is None else self._next)
        while self._machine.end is None:
            frame = await self._receive(self._deadline_s)
            actions = self._machine.on_frame(frame)
            if frame.kind is Kind.PART:
                self._hooks.landed(self._machine.received, self._machine.filled)
            await self._perform(actions)

    def _begin(self) -> list[Action]:
        self._sender = asyncio.create_task(self._send_all())
        return self._machine.start()

    async def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame):
                    self._outbox.put_nowait(frame)
                case Do.SEND_PAYLOAD:
                    self._outbox.put_nowait(self._hooks.agreed())
                case Do.VERIFY:
                    await self._hooks.verify()
                    await self._perform(self._machine.verified())
                case Do.APPLY:
                    self._links.learn(self._stream.peer, self.timing)
                    self._hooks.apply()
                case Do.CLOSE:
                    return
                case Do.AWAIT_CLOSE:
                    await self._await_close()

    async def _send_all(self) -> None:
        while True:
            item = await self._outbox.get()
            if isinstance(item, Frame):
                await self._send(item)
                continue
            for part in range(item.parts):
                await self._send(Frame(Kind.PART, await item.part(part)))

    async def _send(self, frame: Frame) -> None:
        asked = self._now()
        try:
            await self._stream.send(frame, self._deadline_s)
        except DeadlinePassed:
            self.timing.gave_up(asked, self._now())
            raise
        self.bytes_sent += frame.wire_bytes
        self.timing.sent(frame, self._now())

    async def _receive(self, deadline_s: float) -> Frame:
        asked = self._now()
        if self._sender is not None and self._sender.done():
            self._sender.result()
        try:
            frame = await self._stream.receive(deadline_s, self._machine.landing)
        except DeadlinePassed:
            self.timing.gave_up(asked, self._now())
            raise
        self.bytes_received += frame.wire_bytes
        self.timing.received(frame, asked, self._now())
        return frame

    async def _await_close(self) -> None:
        """My last frame must leave before I go; the partner, which reads it last, closes."""
        with suppress(LinkError, PeerFault):
            await self._stream.receive(self._deadline_s)
