"""A network in virtual time: who can reach whom, how fast, and what a script does to it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from swarmnet.errors import DeadlinePassed, LinkError, PeerFault
from swarmnet.exchange.transport import FrameStream, Handler
from swarmnet.sim.clock import now
from swarmnet.sim.link import Access, Cut, Line, Link
from swarmnet.sim.stream import Pipe, SimStream, Wire
from swarmnet.wire import Frame, Kind

__all__ = ["Access", "Cut", "Link", "SimNetwork", "SimTransport", "Traffic"]


@dataclass
class Traffic:
    """What has crossed the network so far, all peers together unless a peer is named."""

    frames: Counter[Kind] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)
    """Streams asked for, by topic; an offer is a stream of topic ``exchange``."""
    bytes_sent: Counter[str] = field(default_factory=Counter)
    """By sender, headers included."""


class _Way:
    """One direction between two peers."""

    def __init__(self, link: Link, rng: random.Random, lines: tuple[Line, Line]) -> None:
        self._link = link
        self._rng = rng
        self.bandwidth = link.bandwidth
        self.up, self.down = lines

    def latency(self) -> float:
        return self._link.draw(self._rng)


class SimNetwork:
    """Joins simulated peers. Faults: ``crash``, ``freeze``, ``partition`` and ``cuts``.

    ``link`` gives the direction from its first to its second argument, ``access`` the line of a
    peer that all of its streams share. ``seed`` is that of the latencies.
    """

    def __init__(
        self,
        link: Callable[[str, str], Link] = lambda a, b: Link(),
        access: Callable[[str], Access] = lambda peer: Access(),
        seed: int = 0,
    ) -> None:
        self._link = link
        self._access = access
        self._rng = random.Random(seed)
        self._lines: dict[str, tuple[Line, Line]] = {}
        self._handlers: dict[str, dict[str, Handler]] = {}
        self._streams: dict[str, dict[SimStream, None]] = {}
        self._tasks: dict[str, dict[asyncio.Task[None], None]] = {}
        self._frozen: dict[str, float] = {}
        self._down: set[str] = set()
        self._walls: Counter[frozenset[str]] = Counter()
        self.cuts: list[Cut] = []
        self.bugs: list[BaseException] = []
        self.traffic = Traffic()

    def transport(self, me: str) -> SimTransport:
        return SimTransport(self, me)

    # ---- faults -----------------------------------------------------------------------------

    def crash(self, peer: str) -> None:
        """The process is gone: its streams break, its tasks stop, its handlers vanish."""
        self._down.add(peer)
        for task in self._tasks.pop(peer, {}):
            task.cancel()
        for stream in self._streams.pop(peer, {}):
            stream.break_both()
        self._handlers.pop(peer, None)

    def restart(self, peer: str) -> None:
        self._down.discard(peer)

    def freeze(self, peer: str, for_s: float) -> None:
        """SIGSTOP: the peer neither reads nor writes, and its streams stay open."""
        self._frozen[peer] = now() + for_s

    def partition(self, a: str, b: str) -> None:
        """No new stream between the two, and the open ones break. Walls add up."""
        self._walls[frozenset((a, b))] += 1
        for stream in list(self._streams.get(a, ())):
            if stream.peer == b:
                stream.break_both()

    def heal(self, a: str, b: str) -> None:
        """Take away one wall between the two."""
        wall = frozenset((a, b))
        self._walls[wall] = max(0, self._walls[wall] - 1)

    # ---- for the simulated transports ---------------------------------------------------------

    def is_down(self, peer: str) -> bool:
        return peer in self._down

    async def thaw(self, peer: str) -> None:
        wait = self._frozen.get(peer, 0.0) - now()
        if wait > 0:
            await asyncio.sleep(wait)
            await self.thaw(peer)

    def sent(self, peer: str, frame: Frame) -> None:
        self.traffic.frames[frame.kind] += 1
        self.traffic.bytes_sent[peer] += frame.wire_bytes

    def forget(self, peer: str, stream: SimStream) -> None:
        self._streams.get(peer, {}).pop(stream, None)

    def own(self, peer: str, task: asyncio.Task[None]) -> None:
        """A task that dies with ``peer``."""
        tasks = self._tasks.setdefault(peer, {})
        tasks[task] = None

        def done(task: asyncio.Task[None]) -> None:
            tasks.pop(task, None)
            if not task.cancelled() and (bug := task.exception()) is not None:
                self.bugs.append(bug)

        task.add_done_callback(done)

    def handle(self, peer: str, topic: str, handler: Handler) -> None:
        self._handlers.setdefault(peer, {})[topic] = handler

    async def connect(self, me: str, peer: str, topic: str) -> SimStream:
        self.traffic.opened[topic] += 1
        there, back = self._way(me, peer), self._way(peer, me)
        await asyncio.sleep(there.latency() + back.latency())
        handler = self._handlers.get(peer, {}).get(topic)
        walled = self._walls[frozenset((me, peer))] > 0
        if peer in self._down or walled or handler is None:
            raise LinkError(f"{peer} cannot be reached")
        out, back_in = Pipe(there), Pipe(back)
        wire = Wire(self._scripted(me, peer, topic))
        near = SimStream(self, (me, peer), (out, back_in), wire)
        far = SimStream(self, (peer, me), (back_in, out), wire)
        for owner, stream in ((me, near), (peer, far)):
            self._streams.setdefault(owner, {})[stream] = None
        self.own(peer, asyncio.create_task(self._run_handler(handler, far)))
        return near

    def _way(self, sender: str, receiver: str) -> _Way:
        lines = self._line(sender)[0], self._line(receiver)[1]
        return _Way(self._link(sender, receiver), self._rng, lines)

    def _line(self, peer: str) -> tuple[Line, Line]:
        lines = self._lines.get(peer)
        if lines is None:
            access = self._access(peer)
            lines = self._lines[peer] = Line(access.up), Line(access.down)
        return lines

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
