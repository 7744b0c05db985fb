"""The one thread in which everything of the network happens: a uvloop event loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

import uvloop

T = TypeVar("T")
log = logging.getLogger(__name__)


class NetThread:
    """Runs coroutines for other threads. What runs in it must not block; tensors wait elsewhere.

    ``stop`` cancels whatever is left and ends the loop. The daemon of a node dies with the thread
    that started it, so nodes live and end inside.
    """

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._main, name="swarmnet-net", daemon=True)
        self._started = threading.Event()
        self._stopping: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Begin ``work`` and return at once. RuntimeError when the thread has ended."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; blocks the caller, which must be another thread."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("run() would wait for itself: await the coroutine instead")
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel all tasks and end the thread. May be called twice."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.error("the network thread did not end within %.0f s", timeout_s)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self._loop = runner.get_loop()
            runner.run(self._wait_stopped())

    async def _wait_stopped(self) -> None:
        self._stopping = asyncio.Event()
        self._started.set()
        await self._stopping.wait()
