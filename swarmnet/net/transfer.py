"""Large things between two peers: a manifest with one hash per chunk, then the chunks asked for.

    asks    GET (what)
    serves  MANIFEST (sizes, hashes, describes), or BUSY (when to ask again, or that it is gone)
    asks    WANT (chunks), as often as it likes, before the last ones are there
    serves  CHUNK, CHUNK, ... in the order in which they were wanted
    ends    who asked closes when it has enough

The asker chooses, so it can take what it lacks, resume, and ask several at once
(``net/download.py``). Exchange payloads need no hashes, because the stream is authenticated; these
do, because they are kept, resumed and compared between donors.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgpack
from blake3 import blake3

from swarmnet.errors import DonorBusy, MessageError, NotKept, PayloadError, StreamCut
from swarmnet.exchange.transport import FrameStream, Transport
from swarmnet.net.stream import wait_closed
from swarmnet.wire import Frame, Kind
from swarmnet.wire.frame import CHUNK_BYTES
from swarmnet.wire.messages import MAX_WANTED, Busy, Get, Manifest, Want

MAX_RETRY_S = 60.0
DEADLINE_S = 20.0
"""Without progress, between who gives and who takes."""


class Goods(Protocol):
    """Something to give away. It does not change while it is given."""

    describes: Mapping[str, Any]
    hashes: Sequence[bytes]
    nbytes: int

    def chunk(self, index: int) -> memoryview:
        """Valid until the next call."""
        ...


@dataclass(frozen=True)
class Limits:
    """What an asker is ready to hold and to wait for: bytes, and seconds without progress."""

    max_bytes: int
    deadline_s: float = 30.0


class Blob:
    """Bytes as goods, and what describes them."""

    def __init__(
        self, content: bytes | memoryview, describes: Mapping[str, Any] | None = None
    ) -> None:
        self.describes: Mapping[str, Any] = dict(describes or {})
        self._view = memoryview(content)
        self.nbytes = len(content)
        self.hashes: Sequence[bytes] = [
            blake3(self.chunk(i)).digest() for i in range(chunks_of(self.nbytes))
        ]

    def chunk(self, index: int) -> memoryview:
        return self._view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


def chunks_of(nbytes: int) -> int:
    return -(-nbytes // CHUNK_BYTES)


async def give(
    stream: FrameStream,
    goods: Goods,
    deadline_s: float,
    pause: Callable[[int], Awaitable[None]] | None = None,
) -> int:
    """The manifest, then what is wanted, until the asker has enough. Returns the bytes given.

    ``pause`` is awaited with the size of every chunk before it is sent.

    Raises:
        LinkError: the asker went away within a chunk, or wanted nothing for ``deadline_s``.
        MessageError: it wants what there is not.
    """
    manifest = Manifest(
        nbytes=goods.nbytes,
        chunks=tuple(goods.hashes),
        describes=msgpack.packb(dict(goods.describes)),
    )
    await stream.send(manifest.frame(), deadline_s)
    given = 0
    while True:
        try:
            frame = await stream.receive(deadline_s)
        except StreamCut:
            return given
        for index in Want.parse(frame).chunks:
            if index >= len(goods.hashes):
                raise MessageError(f"WANT: chunk {index} of {len(goods.hashes)}")
            chunk = goods.chunk(index)
            if pause is not None:
                await pause(len(chunk))
            await stream.send(Frame(Kind.CHUNK, chunk), deadline_s)
            given += len(chunk)
    return given


async def decline(stream: FrameStream, busy: Busy) -> None:
    """Give nothing now. The asker reads it last and closes."""
    await stream.send(busy.frame(), DEADLINE_S)
    await wait_closed(stream, DEADLINE_S)


class Source:
    """One donor's stream, as its asker sees it. Whoever opened the stream closes it."""

    def __init__(self, stream: FrameStream, manifest: Manifest) -> None:
        self._stream = stream
        self.hashes = manifest.chunks
        self.nbytes = manifest.nbytes
        self.describes = _described(manifest)
        self.wanted: deque[int] = deque()
        """Asked for and not here yet, in the order in which they come."""

    @classmethod
    async def open(cls, stream: FrameStream, get: Get, limits: Limits) -> Self:
        """Ask what is given. The caller closes ``stream`` if this fails.

        Raises:
            DonorBusy: nothing now. NotKept: not there. LinkError: the stream ended or stalled.
            PeerFault: the manifest cannot be, or offers more than ``limits``.
        """
        await stream.send(get.frame(), limits.deadline_s)
        frame = await stream.receive(limits.deadline_s)
        if frame.kind is Kind.BUSY:
            busy = Busy.parse(frame)
            if busy.reason == "gone":
                raise NotKept(f"{stream.peer} does not keep that")
            raise DonorBusy(f"{stream.peer} is {busy.reason}", min(busy.retry_s, MAX_RETRY_S))
        manifest = Manifest.parse(frame)
        if manifest.nbytes > limits.max_bytes:
            raise PayloadError(
                f"{manifest.nbytes} bytes offered, at most {limits.max_bytes} wanted"
            )
        return cls(stream, manifest)

    async def want(self, chunks: Sequence[int], deadline_s: float) -> None:
        """Ask for more; does not wait for any."""
        for start in range(0, len(chunks), MAX_WANTED):
            some = tuple(chunks[start : start + MAX_WANTED])
            await self._stream.send(Want(chunks=some).frame(), deadline_s)
            self.wanted.extend(some)

    async def receive(self, size: int, deadline_s: float) -> tuple[int, memoryview]:
        """The next chunk that is wanted, unchecked but for its ``size``: its index and bytes."""
        frame = await self._stream.receive(deadline_s)
        index = self.wanted.popleft()
        if frame.kind is not Kind.CHUNK or len(frame.body) != size:
            raise PayloadError(f"chunk {index}: {frame.kind.name} of {len(frame.body)} bytes")
        return index, memoryview(frame.body)

    def check(self, index: int, body: memoryview) -> None:
        """Raises PayloadError when these are other bytes than the manifest says."""
        if blake3(body).digest() != self.hashes[index]:
            raise PayloadError(f"chunk {index} does not match its hash")


async def fetch_blob(
    transport: Transport, peer: str, topic: str, get: Get, limits: Limits
) -> tuple[dict[str, Any], bytearray]:
    """All that one peer gives: (what describes it, its bytes), every chunk checked.

    Raises:
        LinkError: nobody there, busy, cut or stalled. PeerFault: a wrong hash or size.
    """
    stream = await transport.open(peer, topic, limits.deadline_s)
    try:
        source = await Source.open(stream, get, limits)
        if len(source.hashes) != chunks_of(source.nbytes):
            raise PayloadError("the manifest's sizes do not fit together")
        content = bytearray()
        await source.want(range(len(source.hashes)), limits.deadline_s)
        while source.wanted:
            size = min(CHUNK_BYTES, source.nbytes - len(content))
            index, body = await source.receive(size, limits.deadline_s)
            await asyncio.to_thread(source.check, index, body)
            content += body
        return source.describes, content
    finally:
        await stream.close()


def _described(manifest: Manifest) -> dict[str, Any]:
    try:
        describes = msgpack.unpackb(manifest.describes)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MessageError(f"MANIFEST: its description is no msgpack: {error}") from error
    if not isinstance(describes, dict):
        raise MessageError("MANIFEST: its description is no map")
    return describes
