"""Letters between peers of a pipeline: one stream for each direction, opened when first needed.

A letter is delivered once or not at all, in the order of one sender. When a stream is lost its
sender is told, and told nothing of single letters: what it waited for is broken then, and whoever
waits knows what that was. Nothing here retries; trips do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from swarmnet.errors import LinkError, MessageError, PeerFault
from swarmnet.exchange.transport import FrameStream, Transport
from swarmnet.wire import Frame, Kind
from swarmnet.wire.frame import PART_BYTES
from swarmnet.wire.letters import Backward, Fates, Forget, Forward, Inquire, Receipt, Resume
from swarmnet.wire.messages import Message, Tally

TOPIC = "post"
DEADLINE_S = 10.0
IDLE_S = 24 * 3600.0
MAX_QUEUED_BYTES = 256 << 20
LETTERS: dict[Kind, type[Message]] = {
    cls.kind: cls for cls in (Forward, Backward, Resume, Receipt, Fates, Forget, Inquire, Tally)
}
Bytes = bytes | memoryview
Payload = Sequence[Bytes]


class Inbox(Protocol):
    """Whose letters these are. Both are called in the loop and must not block."""

    def room(self, letter: Message) -> int:
        """The most payload bytes that such a letter may bring. Raises PeerFault: none at all."""
        ...

    def letter(self, peer: str, letter: Message, payload: memoryview) -> None:
        """Raises PeerFault when ``peer`` must not say this; the stream ends with it."""
        ...

    def lost(self, peer: str) -> None:
        """The line to ``peer`` broke, or could not be opened; letters may be lost."""
        ...


@dataclass(frozen=True)
class _Item:
    letter: Message
    payload: tuple[memoryview, ...]

    @property
    def nbytes(self) -> int:
        return sum(len(piece) for piece in self.payload)


class Post:
    """One peer's letters, both ways."""

    def __init__(self, transport: Transport, inbox: Inbox) -> None:
        self._transport = transport
        self._inbox = inbox
        self._lines: dict[str, _Line] = {}
        self._incoming: set[FrameStream] = set()
        self._closed = False
        self.bytes_sent = 0
        self.letters_sent = 0

    async def open(self) -> None:
        await self._transport.serve(TOPIC, self._serve)

    def send(self, peer: str, letter: Message, payload: Payload = ()) -> None:
        """Queue a letter; ``payload`` must not change until it has left."""
        item = _Item(letter, tuple(memoryview(piece).cast("B") for piece in payload))
        line = self._lines.get(peer)
        if line is None or line.over:
            line = self._lines[peer] = _Line(self, peer)
        line.put(item)

    async def drained(self) -> None:
        """Until all that was sent so far has left, or its line is lost."""
        await asyncio.gather(*(line.drained() for line in list(self._lines.values())))

    async def close(self) -> None:
        """Both ways: whoever writes on sees its line break, and does not write into the void."""
        self._closed = True
        lines, self._lines = list(self._lines.values()), {}
        incoming = [stream.close() for stream in self._incoming]
        await asyncio.gather(*(line.close() for line in lines), *incoming)

    # ---- for lines --------------------------------------------------------------------------

    async def connect(self, peer: str) -> FrameStream:
        return await self._transport.open(peer, TOPIC, DEADLINE_S)

    def broken(self, peer: str, line: _Line) -> None:
        if self._lines.get(peer) is line:
            del self._lines[peer]
            self._inbox.lost(peer)

    def given_up(self, peer: str, line: _Line) -> None:
        """As ``broken``, from within ``send``: whoever sends is told when it is done with that."""
        line.over = True
        if self._lines.get(peer) is line:
            del self._lines[peer]
        asyncio.get_running_loop().call_soon(self._inbox.lost, peer)

    # ---- incoming ---------------------------------------------------------------------------

    async def _serve(self, stream: FrameStream) -> None:
        self._incoming.add(stream)
        try:
            while not self._closed:
                frame = await stream.receive(IDLE_S)
                cls = LETTERS.get(frame.kind)
                if cls is None:
                    raise MessageError(f"{frame.kind.name} is no letter")
                letter = cls.parse(frame)
                payload = await self._payload(stream, letter)
                self._inbox.letter(stream.peer, letter, payload)
        finally:
            self._incoming.discard(stream)
            await stream.close()

    async def _payload(self, stream: FrameStream, letter: Message) -> memoryview:
        nbytes = getattr(letter, "nbytes", 0)
        if nbytes > (self._inbox.room(letter) if nbytes else 0):
            raise MessageError(f"{letter.kind.name} of {nbytes} bytes is too large")
        landing = memoryview(bytearray(nbytes))
        filled = 0
        while filled < nbytes:
            rest = landing[filled : filled + PART_BYTES]
            frame = await stream.receive(DEADLINE_S, rest)
            if frame.kind is not Kind.PART or not 0 < len(frame.body) <= len(rest):
                raise MessageError(f"{frame.kind.name} within a payload")
            rest[: len(frame.body)] = frame.body
            filled += len(frame.body)
        return landing.toreadonly()


class _Line:
    """Letters to one peer, in order."""

    def __init__(self, post: Post, peer: str) -> None:
        self.over = False
        self._post = post
        self._peer = peer
        self._items: deque[_Item] = deque()
        self._queued = 0
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def put(self, item: _Item) -> None:
        """Beyond the bound the peer does not read: the line is given up, with all that waits."""
        if self._queued + item.nbytes > MAX_QUEUED_BYTES:
            self._task.cancel()
            self._post.given_up(self._peer, self)
            return
        self._items.append(item)
        self._queued += item.nbytes
        self._empty.clear()
        self._filled.set()

    async def drained(self) -> None:
        sent = asyncio.ensure_future(self._empty.wait())
        try:
            await asyncio.wait({sent, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sent.cancel()

    async def close(self) -> None:
        self.over = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            stream = await self._post.connect(self._peer)
            watch = asyncio.create_task(_until_closed(stream))
            try:
                await self._drain(stream, watch)
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
                await stream.close()
        except (LinkError, PeerFault):
            self.over = True
            self._post.broken(self._peer, self)

    async def _drain(self, stream: FrameStream, watch: asyncio.Task[None]) -> None:
        while True:
            while self._items:
                item = self._items.popleft()
                self._queued -= item.nbytes
                await self._deliver(stream, item)
            self._empty.set()
            self._filled.clear()
            filled = asyncio.ensure_future(self._filled.wait())
            try:
                await asyncio.wait({filled, watch}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                filled.cancel()
            if watch.done():
                watch.result()

    async def _deliver(self, stream: FrameStream, item: _Item) -> None:
        frames = [item.letter.frame()]
        for piece in item.payload:
            frames += [
                Frame(Kind.PART, piece[start : start + PART_BYTES])
                for start in range(0, len(piece), PART_BYTES)
            ]
        for frame in frames:
            await stream.send(frame, DEADLINE_S)
            self._post.bytes_sent += frame.wire_bytes
        self._post.letters_sent += 1


async def _until_closed(stream: FrameStream) -> None:
    """The other end says nothing on our line: all that can come is its end. Raises LinkError."""
    while True:
        frame = await stream.receive(IDLE_S)
        raise MessageError(f"{frame.kind.name} on a line that is ours")
