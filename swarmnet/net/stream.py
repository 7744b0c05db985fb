"""Frames over one libp2p stream, as the daemon hands it to us: a Unix socket with two directions.

Deadlines are on progress: as long as bytes move, a call goes on. There is no half-close, so a
stream ends for both sides at once, and the side that reads last closes it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from swarmnet.errors import DeadlinePassed, LinkError, StreamCut
from swarmnet.exchange.transport import FrameStream
from swarmnet.wire import HEADER_BYTES, Frame, encode_header, parse_header

PIECE_BYTES = 512 * 1024
"""Bytes taken from the socket at a time: the unit of progress that a receiver observes."""
_CLOSE_S = 1.0


async def wait_closed(stream: FrameStream, deadline_s: float) -> None:
    """Let the reader of our last frame close first: closing earlier could cut it off."""
    with suppress(LinkError):
        await stream.receive(deadline_s)


class P2pStream:
    """A ``FrameStream``; one task may send while another receives.

    A frame's body is handed to the socket without a copy: it must not change before the partner
    has answered, or before ``close``.
    """

    def __init__(
        self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self._broken = False
        self.bytes_sent = 0
        self.bytes_received = 0

    @property
    def peer(self) -> str:
        return self._peer

    async def send(self, frame: Frame, deadline_s: float) -> None:
        """See ``FrameStream.send``; FrameError when the body is above the bound of its kind."""
        header = encode_header(frame.kind, len(frame.body))
        try:
            self._writer.write(header)
            self._writer.write(frame.body)
            self.bytes_sent += frame.wire_bytes
            await self._drain(deadline_s)
        except (OSError, RuntimeError) as error:
            self._broken = True
            raise StreamCut(f"the stream to {self._peer} ended while sending") from error

    async def receive(self, deadline_s: float) -> Frame:
        """See ``FrameStream.receive``. Nothing is stored before the header has been checked."""
        header = parse_header(await self._read(HEADER_BYTES, deadline_s))
        return Frame(header.kind, await self._read(header.length, deadline_s))

    async def close(self) -> None:
        self._writer.close()
        try:
            if self._broken:
                self._writer.transport.abort()
            async with asyncio.timeout(_CLOSE_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
        except asyncio.CancelledError:
            self._writer.transport.abort()
            raise

    async def _drain(self, deadline_s: float) -> None:
        """Wait for room; each time the socket took something the deadline starts anew."""
        waiting = self._writer.transport.get_write_buffer_size()
        while True:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._writer.drain()
                return
            except TimeoutError:
                left = self._writer.transport.get_write_buffer_size()
                if left >= waiting:
                    self._broken = True
                    raise DeadlinePassed(
                        f"{self._peer} took nothing for {deadline_s:.1f} s"
                    ) from None
                waiting = left

    async def _read(self, nbytes: int, deadline_s: float) -> bytes | memoryview:
        loop = asyncio.get_running_loop()
        parts: list[bytes] = []
        missing = nbytes
        try:
            async with asyncio.timeout(deadline_s) as timeout:
                while missing:
                    part = await self._reader.read(min(missing, PIECE_BYTES))
                    if not part:
                        raise StreamCut(f"the stream from {self._peer} ended early")
                    parts.append(part)
                    missing -= len(part)
                    self.bytes_received += len(part)
                    timeout.reschedule(loop.time() + deadline_s)
        except TimeoutError:
            self._broken = True
            raise DeadlinePassed(f"{self._peer} sent nothing for {deadline_s:.1f} s") from None
        except (OSError, RuntimeError) as error:
            self._broken = True
            raise StreamCut(f"the stream from {self._peer} ended while receiving") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)
