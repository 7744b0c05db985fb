"""A node under the weather: it refuses, cuts and slows its own streams as the file says.

Nobody needs to be root for it, and it is only as good as that: walls stand between our streams
and before what is read from the phone book; the DHT's own messages and libp2p's connections cross
them. ``docs/storms.md`` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from peers.storm.weather import Line, Weather, read
from peers.storm.wrongclock import CLOCK
from swarmnet.errors import LinkError, StreamCut
from swarmnet.exchange.transport import FrameStream, Handler
from swarmnet.net.folder import PrivateFolder
from swarmnet.net.node import Node, NodeOptions
from swarmnet.wire import HEADER_BYTES, Frame

LOOK_S = 0.2


class WeatheredNode(Node):
    """A node whose ``sky`` is clear until ``exposed`` shows it the file."""

    def __init__(self, options: NodeOptions, folder: PrivateFolder) -> None:
        super().__init__(options, folder)
        self.sky = Sky(self.me)

    @classmethod
    async def exposed(cls, options: NodeOptions, path: Path) -> WeatheredNode:
        """A started node under the weather of ``path``. Raises UnreachableError, AddressError."""
        CLOCK.install()
        CLOCK.ahead_s = (read(path) or Weather()).clocks.get(options.identity.peer_id, 0.0)
        node = await cls.start(options)
        assert isinstance(node, WeatheredNode)
        node.sky.watch(path)
        return node

    async def open(self, peer: str, topic: str, deadline_s: float) -> FrameStream:
        self.sky.check(peer)
        return self.sky.over(await super().open(peer, topic, deadline_s))

    async def serve(self, topic: str, handler: Handler) -> None:
        async def weathered(stream: FrameStream) -> None:
            self.sky.check(stream.peer)
            await handler(self.sky.over(stream))

        await super().serve(topic, weathered)

    async def lookup(self, key: str) -> dict[str, dict[str, Any]]:
        found = await super().lookup(key)
        return {peer: body for peer, body in found.items() if not self.sky.walled(peer)}

    async def hello(self, peer: str, deadline_s: float = 10.0) -> None:
        self.sky.check(peer)
        await super().hello(peer, deadline_s)

    async def close(self) -> None:
        self.sky.close()
        await super().close()


class Sky:
    """The weather over one peer, as its file said last, and the streams that are under it."""

    def __init__(self, me: str) -> None:
        self.now = Weather()
        self._me = me
        self._path: Path | None = None
        self._streams: set[WeatheredStream] = set()
        self._free_at = 0.0
        self._watcher: asyncio.Task[None] | None = None

    def watch(self, path: Path) -> None:
        self._path = path
        self._look()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    def walled(self, peer: str) -> bool:
        return self.now.walled(self._me, peer)

    def check(self, peer: str) -> None:
        """Raises LinkError when ``peer`` is beyond the wall."""
        if self.walled(peer):
            raise LinkError(f"{peer} cannot be reached")

    def over(self, stream: FrameStream) -> WeatheredStream:
        weathered = WeatheredStream(stream, self)
        self._streams.add(weathered)
        return weathered

    def forget(self, stream: WeatheredStream) -> None:
        self._streams.discard(stream)

    async def sever(self) -> None:
        """Break the open streams that cross the wall."""
        for stream in [stream for stream in self._streams if self.walled(stream.peer)]:
            await stream.close()

    async def delay(self, nbytes: int, *, turned: bool) -> None:
        """As long as ``nbytes`` take on our line; ``turned``: the first bytes of an answer."""
        line: Line | None = self.now.lines.get(self._me)
        if line is None:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + nbytes / line.rate
        await asyncio.sleep(self._free_at - now + (line.latency_s if turned else 0.0))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._look()
            await self.sever()

    def _look(self) -> None:
        if self._path is not None:
            self.now = read(self._path) or self.now
        CLOCK.ahead_s = self.now.clocks.get(self._me, 0.0)


class WeatheredStream:
    """A ``FrameStream`` whose frames take their time; a whole frame is the smallest piece."""

    def __init__(self, inner: FrameStream, sky: Sky) -> None:
        self._inner = inner
        self._sky = sky
        self._heard = True

    @property
    def peer(self) -> str:
        return self._inner.peer

    async def send(self, frame: Frame, deadline_s: float) -> None:
        await self._sky.delay(HEADER_BYTES + len(frame.body), turned=self._heard)
        self._heard = False
        self._check()
        await self._inner.send(frame, deadline_s)

    async def receive(self, deadline_s: float, into: memoryview | None = None) -> Frame:
        frame = await self._inner.receive(deadline_s, into)
        self._heard = True
        await self._sky.delay(HEADER_BYTES + len(frame.body), turned=False)
        self._check()
        return frame

    async def close(self) -> None:
        self._sky.forget(self)
        with contextlib.suppress(LinkError):
            await self._inner.close()

    def _check(self) -> None:
        if self._sky.walled(self.peer):
            raise StreamCut(f"the stream to {self.peer} was cut")
