"""Can others open connections to us? Asked of a peer that we reached, which tries it once.

It tries the address from which it sees us, never one that we name, at the port that we listen on;
so nobody can have it knock at other people's doors. What answers there must speak libp2p.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from multiaddr import Multiaddr

from swarmnet.exchange.transport import FrameStream
from swarmnet.net.contacts import host_of, is_direct
from swarmnet.net.stream import wait_closed
from swarmnet.wire.messages import Dial, Dialed

TOPIC = "dialback"
TRY_S = 1.5
ANSWER_S = 5.0
AT_ONCE = 4
GREETING = b"\x13/multistream/1.0.0\n"
"""How both ends of a libp2p connection begin."""


async def ask(stream: FrameStream, port: int) -> Dialed:
    """What the other end found out about us. Raises LinkError, PeerFault."""
    await stream.send(Dial(port=port).frame(), ANSWER_S)
    return Dialed.parse(await stream.receive(ANSWER_S))


class Dialback:
    """Tries for others; ``seen`` says from which addresses we see a peer."""

    def __init__(self, seen: Callable[[str], Awaitable[list[Multiaddr]]]) -> None:
        self._seen = seen
        self._tries = asyncio.Semaphore(AT_ONCE)

    async def answer(self, stream: FrameStream) -> None:
        """Serve one question; who is seen through a relay, or comes in a crowd, gets no verdict."""
        port = Dial.parse(await stream.receive(ANSWER_S)).port
        answer = Dialed()
        direct = [address for address in await self._seen(stream.peer) if is_direct(address)]
        host = host_of(direct[0]) if direct else None
        if host is not None and not self._tries.locked():
            async with self._tries:
                answer = Dialed(seen=host, reached=await _speaks_libp2p(host, port))
        await stream.send(answer.frame(), ANSWER_S)
        await wait_closed(stream, ANSWER_S)


async def _speaks_libp2p(host: str, port: int) -> bool:
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(TRY_S):
            reader, writer = await asyncio.open_connection(host, port, limit=len(GREETING))
            try:
                writer.write(GREETING)
                return await reader.readexactly(len(GREETING)) == GREETING
            finally:
                writer.close()
    return False
