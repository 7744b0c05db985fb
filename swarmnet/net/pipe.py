"""A Unix socket to the daemon, without a buffer of our own between it and whoever reads.

Reading at every piece that comes costs less than letting some gather: the socket holds 208 KiB,
so a reader that sleeps stops the daemon.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swarmnet.errors import DeadlinePassed, StreamCut

SEND_BUFFER_BYTES = 1024 * 1024
"""What the kernel takes ahead of the daemon: a few frames without a wake-up."""


class Pipe:
    """Both directions of one connected socket; one task may send while another receives.

    Deadlines are on progress: each starts anew when bytes moved. Calls raise StreamCut when the
    other side or ``close`` ended the pipe, DeadlinePassed when nothing moved in time; after either,
    and after a cancelled call, there may be half a message in it: close it.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[bool]] = set()
        self.bytes_sent = 0
        self.bytes_received = 0

    @classmethod
    def connect(cls, path: Path) -> Pipe:
        """A new connection to who listens at ``path``. Raises OSError when nobody does."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.setblocking(False)
            client.connect(str(path))
        except BaseException:
            client.close()
            raise
        return cls(client)

    async def send(self, head: bytes, body: bytes | memoryview, deadline_s: float) -> None:
        """All of ``head`` and ``body``; returns when the kernel has taken them."""
        pieces = [memoryview(head), memoryview(body)]
        late = False
        while True:
            try:
                sent = self._socket.sendmsg(pieces)
            except BlockingIOError:
                if late:
                    raise DeadlinePassed(f"took nothing for {deadline_s:.1f} s") from None
                # The kernel reports room only when most is free: look before giving up.
                late = not await self._writable(deadline_s)
                continue
            except OSError as error:
                raise StreamCut("ended while sending") from error
            late = False
            self.bytes_sent += sent
            pieces = _rest(pieces, sent)
            if not pieces:
                return

    async def receive(self, nbytes: int, deadline_s: float) -> bytearray:
        """The next ``nbytes`` bytes: the caller has checked that it wants to hold that many."""
        buffer = bytearray(nbytes)
        await self.receive_into(memoryview(buffer), deadline_s)
        return buffer

    async def receive_into(self, view: memoryview, deadline_s: float) -> None:
        """The next ``len(view)`` bytes, placed into ``view``."""
        while view:
            try:
                got = self._socket.recv_into(view)
            except BlockingIOError:
                if not await self._readable(deadline_s):
                    raise DeadlinePassed(f"sent nothing for {deadline_s:.1f} s") from None
            except OSError as error:
                raise StreamCut("ended while receiving") from error
            else:
                if not got:
                    raise StreamCut("ended early")
                self.bytes_received += got
                view = view[got:]

    def close(self) -> None:
        """End both directions at once; what the kernel has taken still arrives."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for waiting in self._waiting:
            _settle(waiting, True)

    async def _readable(self, deadline_s: float) -> bool:
        return await self._until(self._loop.add_reader, self._loop.remove_reader, deadline_s)

    async def _writable(self, deadline_s: float) -> bool:
        return await self._until(self._loop.add_writer, self._loop.remove_writer, deadline_s)

    async def _until(
        self, add: Callable[..., None], remove: Callable[..., object], deadline_s: float
    ) -> bool:
        """Whether the socket was ready before the deadline: cheaper than ``asyncio.timeout``."""
        ready: asyncio.Future[bool] = self._loop.create_future()
        timer = self._loop.call_later(deadline_s, _settle, ready, False)
        add(self._socket, _settle, ready, True)
        self._waiting.add(ready)
        try:
            return await ready
        finally:
            timer.cancel()
            self._waiting.discard(ready)
            if self._socket.fileno() >= 0:
                remove(self._socket)


def _settle(waiting: asyncio.Future[bool], ready: bool) -> None:
    if not waiting.done():
        waiting.set_result(ready)


def _rest(pieces: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of ``pieces`` after their first ``sent`` bytes."""
    while pieces and sent >= len(pieces[0]):
        sent -= len(pieces[0])
        pieces = pieces[1:]
    return [pieces[0][sent:], *pieces[1:]] if sent else pieces
