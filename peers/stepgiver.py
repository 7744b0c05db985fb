"""A stage peer gives steps that it keeps to a joiner that follows (``pipeline/steplog.py``)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

from swarmnet.events import StateServed
from swarmnet.exchange.transport import FrameStream
from swarmnet.net.transfer import DEADLINE_S, Blob, decline, give
from swarmnet.pipeline.steplog import Logged
from swarmnet.wire.messages import Busy

RETRY_S = 0.2
FOLLOWERS = 4
"""Who take a step at the same time; each takes only a moment."""


class StepGiver:
    """In the network's loop. ``pause`` is awaited for bytes that the machine's share pays for."""

    def __init__(
        self, pause: Callable[[int], Awaitable[None]], emit: Callable[[StateServed], None]
    ) -> None:
        self.logged: Callable[[int], Logged | None] = lambda step: None
        """The step of my stage that led to this one, if it is kept."""
        self._pause = pause
        self._emit = emit
        self._followers = 0
        self._blobs: WeakKeyDictionary[Logged, Blob] = WeakKeyDictionary()
        self._had: WeakKeyDictionary[Logged, set[str]] = WeakKeyDictionary()

    async def give(self, stream: FrameStream, step: int) -> None:
        """Answer one GET. To each peer a step is given once at full speed, and then at a pace."""
        logged = self.logged(step)
        if logged is None:
            await decline(stream, Busy(reason="gone", retry_s=RETRY_S))
        elif self._followers >= FOLLOWERS:
            await decline(stream, Busy(reason="busy", retry_s=RETRY_S))
        else:
            self._followers += 1
            try:
                await self._give(stream, logged)
            finally:
                self._followers -= 1

    async def _give(self, stream: FrameStream, logged: Logged) -> None:
        if logged not in self._blobs:
            content = memoryview(logged.mean.numpy()).cast("B")
            self._blobs[logged] = await asyncio.to_thread(Blob, content, logged.pack())
        blob, had = self._blobs[logged], self._had.setdefault(logged, set())
        free = 0 if stream.peer in had else blob.nbytes
        had.add(stream.peer)

        async def pause(nbytes: int) -> None:
            nonlocal free
            free -= nbytes
            if free < 0:
                await self._pause(nbytes)

        began = time.monotonic()
        if given := await give(stream, blob, DEADLINE_S, pause):
            self._emit(StateServed(stream.peer, given, time.monotonic() - began, logged.step))
