"""One meeting over one stream: performs what a pair machine says, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from swarmnet.errors import DeadlinePassed, LinkError, PeerFault
from swarmnet.exchange.links import Links
from swarmnet.exchange.pair import Action, Do, Machine, Send
from swarmnet.exchange.payload import Outgoing
from swarmnet.exchange.transport import FrameStream
from swarmnet.wire import Frame, Kind


@dataclass(frozen=True)
class Hooks:
    """What the meeting means to its peer."""

    agreed: Callable[[], Outgoing]
    """The meeting is on: what to send. Called once. Raises LinkError."""
    landed: Callable[[bytearray, int], None]
    """So many bytes of the partner's payload are there. Raises PayloadError."""
    verify: Callable[[], Awaitable[None]]
    """All of them are: decoded, checked, reduced. Raises PayloadError."""
    apply: Callable[[], None]


class Session:
    """Runs ``machine`` over ``stream`` until it has ended, whatever the network does."""

    def __init__(self, stream: FrameStream, machine: Machine, hooks: Hooks, links: Links) -> None:
        self._stream = stream
        self._machine = machine
        self._hooks = hooks
        self._links = links
        self._outbox: asyncio.Queue[Frame | Outgoing] = asyncio.Queue()
        self.bytes_sent = 0
        self.bytes_received = 0
        self._longest_s = 0.0
        self._deadline_s = links.deadline_s(stream.peer)

    async def run(self) -> None:
        """Never raises LinkError or PeerFault: ``machine.end`` and ``.reason`` say how it went."""
        sender = asyncio.create_task(self._send_all())
        try:
            await self._perform(self._machine.start())
            while self._machine.end is None:
                frame = await self._receive(sender)
                actions = self._machine.on_frame(frame)
                if frame.kind is Kind.PART:
                    self._hooks.landed(self._machine.received, self._machine.filled)
                await self._perform(actions)
        except (LinkError, PeerFault) as error:
            self._machine.lost(f"{type(error).__name__}: {error}")
            if isinstance(error, DeadlinePassed):
                self._links.observe(self._stream.peer, self._longest_s)
        finally:
            # A task that ends by cancellation has not decided: the machine must hear of it.
            self._machine.lost("the exchange was cancelled")
            sender.cancel()
            with suppress(asyncio.CancelledError, LinkError, PeerFault):
                await sender
            await self._stream.close()

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
                    self._links.observe(self._stream.peer, self._longest_s)
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
        await self._stream.send(frame, self._deadline_s)
        self.bytes_sent += frame.wire_bytes

    async def _receive(self, sender: asyncio.Task[None]) -> Frame:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        if sender.done():
            sender.result()
        try:
            frame = await self._stream.receive(self._deadline_s, self._machine.landing)
        finally:
            self._longest_s = max(self._longest_s, loop.time() - asked)
        self.bytes_received += frame.wire_bytes
        return frame

    async def _await_close(self) -> None:
        """My last frame must leave before I go; the partner, which reads it last, closes."""
        with suppress(LinkError, PeerFault):
            await self._stream.receive(self._deadline_s)
