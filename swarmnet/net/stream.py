"""Frames over one libp2p stream, as the daemon hands it to us: a Unix socket with two directions.

Deadlines are on progress: as long as bytes move, a call goes on. There is no half-close, so a
stream ends for both sides at once, and the side that reads last closes it.
"""

from __future__ import annotations

from contextlib import suppress

from swarmnet.errors import DeadlinePassed, LinkError, StreamCut
from swarmnet.exchange.transport import FrameStream
from swarmnet.net.pipe import Pipe
from swarmnet.wire import HEADER_BYTES, Frame, Kind, encode_header, parse_header


async def wait_closed(stream: FrameStream, deadline_s: float) -> None:
    """Let the reader of our last frame close first: closing earlier could cut it off."""
    with suppress(LinkError):
        await stream.receive(deadline_s)


class P2pStream:
    """A ``FrameStream``; one task may send while another receives.

    A frame's body goes from its owner's memory to the kernel, and a PART's body from the kernel
    to where the meeting wants it, without a copy between.
    """

    def __init__(self, peer: str, pipe: Pipe) -> None:
        self._peer = peer
        self._pipe = pipe

    @property
    def peer(self) -> str:
        return self._peer

    @property
    def bytes_sent(self) -> int:
        return self._pipe.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._pipe.bytes_received

    @property
    def closed(self) -> bool:
        return self._pipe.closed

    async def send(self, frame: Frame, deadline_s: float) -> None:
        """See ``FrameStream.send``; FrameError when the body is above the bound of its kind."""
        header = encode_header(frame.kind, len(frame.body))
        try:
            await self._pipe.send(header, frame.body, deadline_s)
        except LinkError as error:
            raise self._named(error) from error

    async def receive(self, deadline_s: float, into: memoryview | None = None) -> Frame:
        """See ``FrameStream.receive``. Nothing is stored before the header has been checked."""
        try:
            header = parse_header(bytes(await self._pipe.receive(HEADER_BYTES, deadline_s)))
            if into is not None and header.kind is Kind.PART and header.length <= len(into):
                body = into[: header.length]
            else:
                body = memoryview(bytearray(header.length))
            await self._pipe.receive_into(body, deadline_s)
        except LinkError as error:
            raise self._named(error) from error
        return Frame(header.kind, body)

    async def close(self) -> None:
        self._pipe.close()

    def _named(self, error: LinkError) -> LinkError:
        if isinstance(error, DeadlinePassed):
            return DeadlinePassed(f"{self._peer} {error}")
        return StreamCut(f"the stream to {self._peer} {error}")
