"""Streams in virtual time: ordered, with back-pressure, and broken where a script says so.

A frame leaves when its stream's link and its sender's line have carried it, is ``latency`` seconds
on its way, and arrives when the receiver's line has carried it too. A stream cut after *b* bytes
delivers the frames that were whole by then, which is all that a reader of whole frames can tell.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from swarmnet.errors import DeadlinePassed, StreamCut
from swarmnet.sim.clock import now
from swarmnet.sim.link import Cut, Line
from swarmnet.wire import Frame

WINDOW_BYTES = 1 << 20
"""What a sender may have under way before it waits for the reader."""


class Way(Protocol):
    """One direction between two peers as a stream sees it."""

    bandwidth: float
    up: Line
    down: Line

    def latency(self) -> float: ...


@dataclass
class Pipe:
    """One direction of a stream."""

    way: Way
    queue: asyncio.Queue[Frame | None] = field(default_factory=asyncio.Queue)
    under_way: deque[Frame | None] = field(default_factory=deque)
    landing: deque[Frame | None] = field(default_factory=deque)
    sent: int = 0
    unread: int = 0
    free_at: float = 0.0
    left_at: float = 0.0
    there_at: float = 0.0
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, frame: Frame) -> None:
        """The sender hands over a frame."""
        nbytes, at = frame.wire_bytes, now()
        self.sent += nbytes
        self.unread += nbytes
        self.free_at = max(at, self.free_at) + nbytes / self.way.bandwidth
        self.left_at = max(self.free_at, self.way.up.carry(nbytes, at))
        self._travel(frame)

    def end(self) -> None:
        """Whoever reads what is under way hears afterwards that there is no more."""
        self.drained.set()
        self.left_at = max(self.left_at, now())
        self._travel(None)

    def _travel(self, frame: Frame | None) -> None:
        self.under_way.append(frame)
        # A message that was faster than the one before it waits: the stream is ordered.
        self.there_at = max(self.there_at, self.left_at + self.way.latency())
        asyncio.get_running_loop().call_at(self.there_at, self._reach)

    def _reach(self) -> None:
        """The receiver's line takes the next message; timers of one moment fire in any order."""
        frame, at = self.under_way.popleft(), now()
        done_at = self.way.down.carry(0 if frame is None else frame.wire_bytes, at)
        self.landing.append(frame)
        if done_at <= at and len(self.landing) == 1:
            self._land()
        else:
            asyncio.get_running_loop().call_at(done_at, self._land)

    def _land(self) -> None:
        self.queue.put_nowait(self.landing.popleft())


@dataclass
class Wire:
    """What both ends of a stream share."""

    cut: Cut | None = None
    broken: bool = False


class Ground(Protocol):
    """What a stream asks of the network below it."""

    def is_down(self, peer: str) -> bool: ...

    async def thaw(self, peer: str) -> None: ...

    def sent(self, peer: str, frame: Frame) -> None: ...

    def forget(self, peer: str, stream: SimStream) -> None: ...


class SimStream:
    """One end of a simulated stream (implements ``FrameStream``)."""

    def __init__(
        self, ground: Ground, ends: tuple[str, str], pipes: tuple[Pipe, Pipe], wire: Wire
    ) -> None:
        self._ground = ground
        self._me, self._peer = ends
        self._out, self._in = pipes
        self._wire = wire
        self._closed = False

    @property
    def peer(self) -> str:
        return self._peer

    async def send(self, frame: Frame, deadline_s: float) -> None:
        await self._ground.thaw(self._me)
        if self._closed or self._wire.broken or self._ground.is_down(self._me):
            raise StreamCut("stream is gone")
        pipe, cut = self._out, self._wire.cut
        limit = cut.after_bytes if cut is not None and cut.sender == self._me else math.inf
        if pipe.sent + frame.wire_bytes > limit:
            self.break_both()
            raise StreamCut("scripted cut")
        await self._wait_for_room(pipe, deadline_s)
        if self._closed or self._wire.broken:
            raise StreamCut("stream is gone")
        pipe.put(frame)
        self._ground.sent(self._me, frame)

    async def receive(self, deadline_s: float, into: memoryview | None = None) -> Frame:
        await self._ground.thaw(self._me)
        pipe = self._in
        try:
            async with asyncio.timeout(deadline_s):
                frame = await pipe.queue.get()
        except TimeoutError as error:
            raise DeadlinePassed(f"nothing from {self._peer} for {deadline_s:.1f} s") from error
        await self._ground.thaw(self._me)
        if frame is None:
            pipe.queue.put_nowait(None)
            raise StreamCut("stream ended")
        pipe.unread -= frame.wire_bytes
        pipe.drained.set()
        return frame

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._out.end()
            self._in.end()
            self._ground.forget(self._me, self)

    def break_both(self) -> None:
        """The connection is gone; what was under way may still arrive, then both ends see it."""
        self._wire.broken = True
        self._out.end()
        self._in.end()

    async def _wait_for_room(self, pipe: Pipe, deadline_s: float) -> None:
        while pipe.unread > WINDOW_BYTES and not self._wire.broken:
            pipe.drained.clear()
            try:
                async with asyncio.timeout(deadline_s):
                    await pipe.drained.wait()
            except TimeoutError as error:
                raise DeadlinePassed(f"{self._peer} does not read") from error
