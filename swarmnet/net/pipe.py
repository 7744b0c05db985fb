"""A Unix socket to the daemon, without a buffer of our own between it and whoever reads.

Every piece is read as it comes, for the socket holds 208 KiB and a reader that sleeps stops the
daemon; but the pieces are small, so nobody is woken before the buffer is full. A larger socket
would cost the daemon a sixth more CPU: what waits in it leaves the cache.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from swarmnet.errors import DeadlinePassed, LinkError, StreamCut


class Pipe:
    """Both directions of one connected socket; one task may send while another receives.

    Deadlines are on progress: each starts anew when bytes moved. Calls raise StreamCut when the
    other side or ``close`` ended the pipe, DeadlinePassed when nothing moved in time; after either,
    and after a cancelled call, there may be half a message in it: close it.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._moves: set[_Move] = set()
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
        departure = _Departure(self._socket, self._loop, deadline_s)
        departure.pieces = [memoryview(head), memoryview(body)]
        try:
            await self._complete(departure, self._loop.add_writer, self._loop.remove_writer)
        finally:
            self.bytes_sent += departure.moved

    async def receive(self, nbytes: int, deadline_s: float) -> bytearray:
        """The next ``nbytes`` bytes: the caller has checked that it wants to hold that many."""
        buffer = bytearray(nbytes)
        await self.receive_into(memoryview(buffer), deadline_s)
        return buffer

    async def receive_into(self, view: memoryview, deadline_s: float) -> None:
        """The next ``len(view)`` bytes, placed into ``view``."""
        if not view:
            return
        landing = _Landing(self._socket, self._loop, deadline_s)
        landing.missing = view
        try:
            await self._complete(landing, self._loop.add_reader, self._loop.remove_reader)
        finally:
            self.bytes_received += landing.moved

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        """End both directions at once; what the kernel has taken still arrives."""
        if self.closed:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for move in self._moves:
            move.fail(StreamCut("was closed"))

    async def _complete(
        self, move: _Move, register: Callable[..., None], unregister: Callable[..., object]
    ) -> None:
        """One registration for all pieces of a move costs least."""
        move.step()
        if not move.over.done():
            self._moves.add(move)
            register(self._socket, move.step)
            try:
                await move.until_over()
            finally:
                self._moves.discard(move)
                if self._socket.fileno() >= 0:
                    unregister(self._socket)
        move.over.result()


class _Move:
    """Bytes under way in one direction; whoever waits is woken once, when it is over."""

    doing: ClassVar[str]
    silence: ClassVar[str]

    def __init__(
        self, connected: socket.socket, loop: asyncio.AbstractEventLoop, deadline_s: float
    ) -> None:
        self.moved = 0
        self.over: asyncio.Future[None] = loop.create_future()
        self._socket = connected
        self._loop = loop
        self._deadline_s = deadline_s
        self._moved_at = loop.time()

    def step(self) -> None:
        """One piece, if it can be moved: for the next one the loop calls again."""
        if self.over.done():
            return
        try:
            moved, whole = self._move()
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(StreamCut(f"ended while {self.doing}: {error}"))
            return
        if not moved:
            self.fail(StreamCut("ended early"))
            return
        self.moved += moved
        self._moved_at = self._loop.time()
        if whole:
            self.over.set_result(None)

    async def until_over(self) -> None:
        """Raises StreamCut, DeadlinePassed."""
        self._timer = self._loop.call_later(self._deadline_s, self._look)
        try:
            await self.over
        finally:
            self._timer.cancel()

    def fail(self, error: LinkError) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    def _move(self) -> tuple[int, bool]:
        """(bytes moved, whether that was all). Raises OSError."""
        raise NotImplementedError

    def _look(self) -> None:
        self.step()  # the kernel reports room only when most is free: look before giving up
        left_s = self._moved_at + self._deadline_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self.fail(DeadlinePassed(f"{self.silence} nothing for {self._deadline_s:.1f} s"))


class _Landing(_Move):
    """Into ``missing``, which shrinks."""

    doing, silence = "receiving", "sent"
    missing: memoryview

    def _move(self) -> tuple[int, bool]:
        got = self._socket.recv_into(self.missing)
        self.missing = self.missing[got:]
        return got, not self.missing


class _Departure(_Move):
    """Out of ``pieces``, of which the first may be sent in part."""

    doing, silence = "sending", "took"
    pieces: list[memoryview]

    def _move(self) -> tuple[int, bool]:
        sent = self._socket.sendmsg(self.pieces)
        self.pieces = _rest(self.pieces, sent)
        return sent, not self.pieces


def _rest(pieces: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of ``pieces`` after their first ``sent`` bytes."""
    while pieces and sent >= len(pieces[0]):
        sent -= len(pieces[0])
        pieces = pieces[1:]
    return [pieces[0][sent:], *pieces[1:]] if sent else pieces
