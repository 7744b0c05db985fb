"""Requests to the libp2p daemon over its control socket, each bounded in time and cleaned up.

hivemind has these calls too, but leaves sockets open when a call fails or is cancelled and reads
streams through small buffers; a swarm whose partners come and go makes many calls that fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import base58
from multiaddr import Multiaddr

from swarmnet.errors import DeadlinePassed, LinkError
from swarmnet.net.engine import DaemonMultiaddr, p2pd_pb2, read_pbmsg_safe, write_pbmsg

READ_BUFFER_BYTES = 256 * 1024
"""asyncio pauses a socket at twice this: few wake-ups per frame, bounded memory per stream."""

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Control:
    """One daemon, seen through its control socket. All failures are LinkErrors."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def identify(self, deadline_s: float) -> list[Multiaddr]:
        """The addresses under which the daemon believes to be visible, without ``/p2p``."""
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.IDENTIFY)
        async with self._call(request, deadline_s) as (response, _):
            return [Multiaddr(raw) for raw in response.identify.addrs]

    async def connect(self, peer: str, addresses: Iterable[Multiaddr], deadline_s: float) -> None:
        """Be connected to ``peer``; ``addresses`` (without ``/p2p``) add to what is known."""
        request = p2pd_pb2.Request(
            type=p2pd_pb2.Request.CONNECT,
            connect=p2pd_pb2.ConnectRequest(
                peer=base58.b58decode(peer), addrs=[address.to_bytes() for address in addresses]
            ),
        )
        async with self._call(request, deadline_s):
            pass

    async def peers(self, deadline_s: float) -> dict[str, list[Multiaddr]]:
        """Whom the daemon is connected to, and through which addresses."""
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.LIST_PEERS)
        async with self._call(request, deadline_s) as (response, _):
            return {
                base58.b58encode(peer.id).decode(): [Multiaddr(raw) for raw in peer.addrs]
                for peer in response.peers
            }

    async def route(self, topic: str, socket: Path, deadline_s: float) -> None:
        """Send streams that others open to ``topic`` to whoever listens on ``socket``."""
        request = p2pd_pb2.Request(
            type=p2pd_pb2.Request.STREAM_HANDLER,
            streamHandler=p2pd_pb2.StreamHandlerRequest(
                addr=DaemonMultiaddr(f"/unix{socket}").to_bytes(), proto=[topic], balanced=False
            ),
        )
        async with self._call(request, deadline_s):
            pass

    async def open(self, peer: str, topic: str, deadline_s: float) -> Pipe:
        """A stream to ``peer``; that it opened does not prove that the peer still lives."""
        request = p2pd_pb2.Request(
            type=p2pd_pb2.Request.STREAM_OPEN,
            streamOpen=p2pd_pb2.StreamOpenRequest(peer=base58.b58decode(peer), proto=[topic]),
        )
        async with self._call(request, deadline_s, keep=True) as (_, pipe):
            return pipe

    @asynccontextmanager
    async def _call(
        self, request: Any, deadline_s: float, keep: bool = False
    ) -> AsyncIterator[tuple[Any, Pipe]]:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(deadline_s):
                reader, writer = await asyncio.open_unix_connection(
                    str(self._socket), limit=READ_BUFFER_BYTES
                )
                await write_pbmsg(writer, request)
                response = p2pd_pb2.Response()
                await read_pbmsg_safe(reader, response)
            if response.type == p2pd_pb2.Response.ERROR:
                raise LinkError(_reason(response.error.msg))
        except BaseException as error:
            if writer is not None:
                writer.transport.abort()
            if isinstance(error, TimeoutError):
                raise DeadlinePassed(f"no answer within {deadline_s:.1f} s") from error
            if isinstance(error, (OSError, EOFError, RuntimeError)):
                raise LinkError(f"the libp2p daemon does not answer: {error}") from error
            raise
        yield response, (reader, writer)
        if not keep:
            writer.transport.abort()


def _reason(message: str) -> str:
    """The last cause that the daemon names, on one line, without its own prefixes."""
    return message.strip().splitlines()[-1].rpartition("] ")[2]


async def read_stream_info(reader: asyncio.StreamReader) -> tuple[str, str]:
    """(peer id, topic) that the daemon writes ahead of a stream which somebody opened to us."""
    info = p2pd_pb2.StreamInfo()
    await read_pbmsg_safe(reader, info)
    return base58.b58encode(info.peer).decode(), str(info.proto)
