"""A Unix socket to the daemon, without a buffer of our own between it and whoever reads.

Every piece is read as it comes, for the socket holds 208 KiB and a reader that sleeps stops the
daemon; but the pieces are small, so nobody is woken before the buffer is full.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

from swarmnet.errors import DeadlinePassed, LinkError, StreamCut

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
        self._landing: _Landing | None = None
        self._room: asyncio.Future[bool] | None = None
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
        landing = self._landing = _Landing(self._socket, view, deadline_s)
        try:
            await landing.land()
        finally:
            self._landing = None
            self.bytes_received += len(view) - len(landing.missing)

    def close(self) -> None:
        """End both directions at once; what the kernel has taken still arrives."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        if self._landing is not None:
            self._landing.fail(StreamCut("ended while receiving"))
        if self._room is not None:
            _settle(self._room, True)

    async def _writable(self, deadline_s: float) -> bool:
        """Whether there was room before the deadline: cheaper than ``asyncio.timeout``."""
        room: asyncio.Future[bool] = self._loop.create_future()
        self._room = room
        timer = self._loop.call_later(deadline_s, _settle, room, False)
        self._loop.add_writer(self._socket, _settle, room, True)
        try:
            return await room
        finally:
            timer.cancel()
            self._room = None
            if self._socket.fileno() >= 0:
                self._loop.remove_writer(self._socket)


class _Landing:
    """A buffer that fills as pieces come; whoever waits is woken once, when it is over."""

    def __init__(self, connected: socket.socket, view: memoryview, deadline_s: float) -> None:
        self.missing = view
        self._socket = connected
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._moved_at = self._loop.time()
        if not view:
            self._over.set_result(None)

    async def land(self) -> None:
        """Raises StreamCut, DeadlinePassed."""
        self._take()
        if not self._over.done():
            await self._wait()
        self._over.result()

    async def _wait(self) -> None:
        self._timer = self._loop.call_later(self._deadline_s, self._look)
        self._loop.add_reader(self._socket, self._take)
        try:
            await self._over
        finally:
            self._timer.cancel()
            if self._socket.fileno() >= 0:
                self._loop.remove_reader(self._socket)

    def fail(self, error: LinkError) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    def _take(self) -> None:
        """One piece, if there is one: for the next one the loop calls again."""
        if self._over.done():
            return
        try:
            got = self._socket.recv_into(self.missing)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(StreamCut(f"ended while receiving: {error.strerror}"))
            return
        if not got:
            self.fail(StreamCut("ended early"))
            return
        self.missing, self._moved_at = self.missing[got:], self._loop.time()
        if not self.missing:
            self._over.set_result(None)

    def _look(self) -> None:
        left_s = self._moved_at + self._deadline_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self.fail(DeadlinePassed(f"sent nothing for {self._deadline_s:.1f} s"))


def _settle(waiting: asyncio.Future[bool], ready: bool) -> None:
    if not waiting.done():
        waiting.set_result(ready)


def _rest(pieces: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of ``pieces`` after their first ``sent`` bytes."""
    while pieces and sent >= len(pieces[0]):
        sent -= len(pieces[0])
        pieces = pieces[1:]
    return [pieces[0][sent:], *pieces[1:]] if sent else pieces
