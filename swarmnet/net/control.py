"""Requests to the libp2p daemon over its control socket, each bounded in time and cleaned up.

hivemind has these calls too, but leaves sockets open when a call fails or is cancelled and copies
streams through buffers; a swarm whose partners come and go makes many calls that fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import base58
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from multiaddr import Multiaddr

from swarmnet.errors import DeadlinePassed, LinkError, StreamCut
from swarmnet.net.engine import DaemonMultiaddr, p2pd_pb2
from swarmnet.net.pipe import Pipe

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The longest message that the daemon may send us."""
_PEERS_REMEMBERED = 1024


class Control:
    """One daemon, seen through its control socket. All failures are LinkErrors."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def identify(self, deadline_s: float) -> list[Multiaddr]:
        """The addresses under which the daemon believes to be visible, without ``/p2p``."""
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.IDENTIFY)
        response = await self._call(request, deadline_s)
        return [Multiaddr(raw) for raw in response.identify.addrs]

    async def connect(self, peer: str, addresses: Iterable[Multiaddr], deadline_s: float) -> None:
        """Be connected to ``peer``; ``addresses`` (without ``/p2p``) add to what is known."""
        request = p2pd_pb2.Request(
            type=p2pd_pb2.Request.CONNECT,
            connect=p2pd_pb2.ConnectRequest(
                peer=_peer_bytes(peer), addrs=[address.to_bytes() for address in addresses]
            ),
        )
        await self._call(request, deadline_s)

    async def disconnect(self, peer: str, deadline_s: float) -> None:
        """Close all connections to ``peer`` and the streams in them."""
        request = p2pd_pb2.Request(
            type=p2pd_pb2.Request.DISCONNECT,
            disconnect=p2pd_pb2.DisconnectRequest(peer=_peer_bytes(peer)),
        )
        await self._call(request, deadline_s)

    async def peers(self, deadline_s: float) -> dict[str, list[Multiaddr]]:
        """Whom the daemon is connected to, and through which addresses: one for each connection."""
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.LIST_PEERS)
        response = await self._call(request, deadline_s)
        connected: dict[str, list[Multiaddr]] = {}
        for peer in response.peers:
            addresses = connected.setdefault(_peer_text(peer.id), [])
            addresses += [Multiaddr(raw) for raw in peer.addrs]
        return connected

    async def route(self, topic: str, socket: Path, deadline_s: float) -> None:
        """Send streams that others open to ``topic`` to whoever listens on ``socket``."""
        request = p2pd_pb2.Request(
            type=p2pd_pb2.Request.STREAM_HANDLER,
            streamHandler=p2pd_pb2.StreamHandlerRequest(
                addr=DaemonMultiaddr(f"/unix{socket}").to_bytes(), proto=[topic], balanced=False
            ),
        )
        await self._call(request, deadline_s)

    async def open(self, peer: str, topic: str, deadline_s: float) -> Pipe:
        """A stream to ``peer``; that it opened does not prove that the peer still lives."""
        request = p2pd_pb2.Request(
            type=p2pd_pb2.Request.STREAM_OPEN,
            streamOpen=p2pd_pb2.StreamOpenRequest(peer=_peer_bytes(peer), proto=[topic]),
        )
        pipe, _ = await self._ask(request, deadline_s)
        return pipe

    async def _call(self, request: Any, deadline_s: float) -> Any:
        pipe, response = await self._ask(request, deadline_s)
        pipe.close()
        return response

    async def _ask(self, request: Any, deadline_s: float) -> tuple[Pipe, Any]:
        """The answer, and the connection on which it came: for an opened stream they are one."""
        try:
            pipe = Pipe.connect(self._socket)
        except OSError as error:
            raise LinkError(f"the libp2p daemon does not answer: {error}") from error
        try:
            await pipe.send(_varint(request.ByteSize()), request.SerializeToString(), deadline_s)
            response = p2pd_pb2.Response()
            await _read_message(pipe, response, deadline_s)
            if response.type == p2pd_pb2.Response.ERROR:
                raise LinkError(_reason(response.error.msg))
        except BaseException as error:
            pipe.close()
            if isinstance(error, DeadlinePassed):
                raise DeadlinePassed(f"no answer within {deadline_s:.1f} s") from error
            if isinstance(error, StreamCut):
                raise LinkError(f"the libp2p daemon does not answer: {error}") from error
            raise
        return pipe, response


async def read_stream_info(pipe: Pipe, deadline_s: float) -> tuple[str, str]:
    """(peer id, topic) that the daemon writes ahead of a stream which somebody opened to us.

    Raises LinkError when it ends or stalls before that.
    """
    info = p2pd_pb2.StreamInfo()
    await _read_message(pipe, info, deadline_s)
    return _peer_text(info.peer), str(info.proto)


async def _read_message(pipe: Pipe, message: Any, deadline_s: float) -> None:
    """Into ``message``, and not a byte further: what follows belongs to the stream."""
    length = shift = 0
    while True:
        [byte] = await pipe.receive(1, deadline_s)
        length |= (byte & 0x7F) << shift
        shift += 7
        if length > MAX_MESSAGE_BYTES:
            raise StreamCut(f"a message of {length} bytes is above {MAX_MESSAGE_BYTES}")
        if byte < 0x80:
            break
        if shift > 28:
            raise StreamCut("a message begins with no length")
    try:
        message.ParseFromString(bytes(await pipe.receive(length, deadline_s)))
    except DecodeError as error:
        raise StreamCut("what came is no message of the daemon") from error


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first, as protobuf counts."""
    head = bytearray()
    while number > 0x7F:
        head.append(number & 0x7F | 0x80)
        number >>= 7
    head.append(number)
    return bytes(head)


@lru_cache(_PEERS_REMEMBERED)
def _peer_text(raw: bytes) -> str:
    return base58.b58encode(raw).decode()


@lru_cache(_PEERS_REMEMBERED)
def _peer_bytes(peer: str) -> bytes:
    return base58.b58decode(peer)


def _reason(message: str) -> str:
    """The last cause that the daemon names, on one line, without its own prefixes."""
    return message.strip().splitlines()[-1].rpartition("] ")[2]
