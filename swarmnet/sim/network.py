"""A network in virtual time: ordered streams with latency and bandwidth, and scripted faults.

A frame arrives ``latency`` seconds after its last byte left; a stream cut after *b* bytes delivers
the frames that were whole by then, which is all that a reader of whole frames can tell apart.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from swarmnet.errors import DeadlinePassed, LinkError, PeerFault, StreamCut
from swarmnet.exchange.transport import FrameStream, Handler
from swarmnet.sim.clock import now
from swarmnet.wire import Frame

WINDOW_BYTES = 1 << 20
"""What a sender may have under way before it waits for the reader."""


@dataclass(frozen=True)
class Link:
    """One direction between two peers: seconds, and bytes per second."""

    latency_s: float = 0.01
    bandwidth: float = 100e6


@dataclass
class Cut:
    """A scripted fault of one stream: it breaks when ``sender`` has sent ``after_bytes``."""

    opener: str
    sender: str
    after_bytes: int
    topic: str = "exchange"
    used: bool = False


@dataclass
class _Pipe:
    """One direction of a stream."""

    link: Link
    queue: asyncio.Queue[Frame | None] = field(default_factory=asyncio.Queue)
    under_way: deque[Frame | None] = field(default_factory=deque)
    sent: int = 0
    unread: int = 0
    free_at: float = 0.0
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    def arrives_at(self, when: float, frame: Frame | None) -> None:
        """In the order of the calls: timers of the same moment fire in any order."""
        self.under_way.append(frame)
        asyncio.get_running_loop().call_at(when, self._arrive)

    def _arrive(self) -> None:
        self.queue.put_nowait(self.under_way.popleft())


class _Wire:
    """What both ends of a stream share."""

    def __init__(self, cut: Cut | None) -> None:
        self.cut = cut
        self.broken = False


class SimStream:
    """One end of a simulated stream (implements ``FrameStream``)."""

    def __init__(
        self, network: SimNetwork, ends: tuple[str, str], pipes: tuple[_Pipe, _Pipe]
    ) -> None:
        self._network = network
        self._me, self._peer = ends
        self._out, self._in = pipes
        self.wire = _Wire(None)
        self._closed = False

    @property
    def peer(self) -> str:
        return self._peer

    async def send(self, frame: Frame, deadline_s: float) -> None:
        await self._network.thaw(self._me)
        if self._closed or self.wire.broken or self._network.is_down(self._me):
            raise StreamCut("stream is gone")
        pipe = self._out
        cut = self.wire.cut
        limit = cut.after_bytes if cut is not None and cut.sender == self._me else math.inf
        if pipe.sent + frame.wire_bytes > limit:
            self.break_both()
            raise StreamCut("scripted cut")
        pipe.sent += frame.wire_bytes
        await self._wait_for_room(pipe, deadline_s)
        if self._closed or self.wire.broken:
            raise StreamCut("stream is gone")
        start = max(now(), pipe.free_at)
        pipe.free_at = start + frame.wire_bytes / pipe.link.bandwidth
        pipe.unread += frame.wire_bytes
        pipe.arrives_at(pipe.free_at + pipe.link.latency_s, frame)

    async def receive(self, deadline_s: float, into: memoryview | None = None) -> Frame:
        await self._network.thaw(self._me)
        pipe = self._in
        try:
            async with asyncio.timeout(deadline_s):
                frame = await pipe.queue.get()
        except TimeoutError as error:
            raise DeadlinePassed(f"nothing from {self._peer} for {deadline_s:.1f} s") from error
        await self._network.thaw(self._me)
        if frame is None:
            pipe.queue.put_nowait(None)
            raise StreamCut("stream ended")
        pipe.unread -= frame.wire_bytes
        pipe.drained.set()
        return frame

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._end(self._out)
            self._end(self._in)
            self._network.forget(self._me, self)

    def break_both(self) -> None:
        """The connection is gone; what was under way may still arrive, then both ends see it."""
        self.wire.broken = True
        self._end(self._out)
        self._end(self._in)

    def _end(self, pipe: _Pipe) -> None:
        pipe.drained.set()
        pipe.arrives_at(max(now(), pipe.free_at) + pipe.link.latency_s, None)

    async def _wait_for_room(self, pipe: _Pipe, deadline_s: float) -> None:
        while pipe.unread > WINDOW_BYTES and not self.wire.broken:
            pipe.drained.clear()
            try:
                async with asyncio.timeout(deadline_s):
                    await pipe.drained.wait()
            except TimeoutError as error:
                raise DeadlinePassed(f"{self._peer} does not read") from error


class SimNetwork:
    """Joins simulated peers. Faults: ``crash``, ``freeze``, ``partition`` and ``cuts``."""

    def __init__(self, link: Callable[[str, str], Link] = lambda a, b: Link()) -> None:
        self._link = link
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._streams: dict[str, set[SimStream]] = {}
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        self._frozen: dict[str, float] = {}
        self._down: set[str] = set()
        self._walls: set[frozenset[str]] = set()
        self.cuts: list[Cut] = []
        self.bugs: list[BaseException] = []

    def transport(self, me: str) -> SimTransport:
        return SimTransport(self, me)

    # ---- faults -----------------------------------------------------------------------------

    def crash(self, peer: str) -> None:
        """The process is gone: its streams break, its tasks stop, its handlers vanish."""
        self._down.add(peer)
        for task in self._tasks.pop(peer, set()):
            task.cancel()
        for stream in self._streams.pop(peer, set()):
            stream.break_both()
        for key in [key for key in self._handlers if key[0] == peer]:
            del self._handlers[key]

    def restart(self, peer: str) -> None:
        self._down.discard(peer)

    def freeze(self, peer: str, for_s: float) -> None:
        """SIGSTOP: the peer neither reads nor writes, and its streams stay open."""
        self._frozen[peer] = now() + for_s

    def partition(self, a: str, b: str) -> None:
        """No new stream between the two, and the open ones break."""
        self._walls.add(frozenset((a, b)))
        for stream in list(self._streams.get(a, ())):
            if stream.peer == b:
                stream.break_both()

    def heal(self, a: str, b: str) -> None:
        self._walls.discard(frozenset((a, b)))

    # ---- for the simulated transports ---------------------------------------------------------

    def is_down(self, peer: str) -> bool:
        return peer in self._down

    async def thaw(self, peer: str) -> None:
        wait = self._frozen.get(peer, 0.0) - now()
        if wait > 0:
            await asyncio.sleep(wait)
            await self.thaw(peer)

    def forget(self, peer: str, stream: SimStream) -> None:
        self._streams.get(peer, set()).discard(stream)

    def own(self, peer: str, task: asyncio.Task[None]) -> None:
        """A task that dies with ``peer``."""
        tasks = self._tasks.setdefault(peer, set())
        tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (bug := task.exception()) is not None:
                self.bugs.append(bug)

        task.add_done_callback(done)

    def handle(self, peer: str, topic: str, handler: Handler) -> None:
        self._handlers[peer, topic] = handler

    async def connect(self, me: str, peer: str, topic: str) -> SimStream:
        there, back = self._link(me, peer), self._link(peer, me)
        await asyncio.sleep(there.latency_s + back.latency_s)
        handler = self._handlers.get((peer, topic))
        if peer in self._down or frozenset((me, peer)) in self._walls or handler is None:
            raise LinkError(f"{peer} cannot be reached")
        pipes = (_Pipe(there), _Pipe(back))
        near = SimStream(self, (me, peer), pipes)
        far = SimStream(self, (peer, me), pipes[::-1])
        near.wire = far.wire = _Wire(self._scripted(me, peer, topic))
        for owner, stream in ((me, near), (peer, far)):
            self._streams.setdefault(owner, set()).add(stream)
        self.own(peer, asyncio.create_task(self._run_handler(handler, far)))
        return near

    def _scripted(self, opener: str, peer: str, topic: str) -> Cut | None:
        for cut in self.cuts:
            wanted = not cut.used and (cut.opener, cut.topic) == (opener, topic)
            if wanted and cut.sender in (opener, peer):
                cut.used = True
                return cut
        return None

    async def _run_handler(self, handler: Handler, stream: SimStream) -> None:
        try:
            with suppress(LinkError, PeerFault):
                await handler(stream)
        finally:
            await stream.close()


class SimTransport:
    """One peer's door to the simulated network (implements ``Transport``)."""

    def __init__(self, network: SimNetwork, me: str) -> None:
        self._network = network
        self._me = me

    @property
    def me(self) -> str:
        return self._me

    async def open(self, peer: str, topic: str, deadline_s: float) -> FrameStream:
        await self._network.thaw(self._me)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._network.connect(self._me, peer, topic)
        except TimeoutError as error:
            raise DeadlinePassed(f"{peer} does not answer") from error

    async def serve(self, topic: str, handler: Handler) -> None:
        self._network.handle(self._me, topic, handler)
