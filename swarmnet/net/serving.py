"""The streams that others open to us: one Unix socket, a handler per topic, a bounded crowd."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from swarmnet.errors import LinkError, PeerFault
from swarmnet.exchange.transport import Handler
from swarmnet.net.control import read_stream_info
from swarmnet.net.pipe import Pipe
from swarmnet.net.stream import P2pStream

MAX_STREAMS = 64
"""Streams served at once; a further one is closed before a byte of it is read."""
_INFO_S = 5.0
_PAUSE_S = 1.0
log = logging.getLogger(__name__)


class StreamServer:
    """Runs one task per incoming stream; what a handler raises ends that stream and no more.

    ``on_stream`` is called with each before its handler is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_stream: Callable[[P2pStream], None] = lambda _: None
        self.handlers: dict[str, Handler] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._socket.setblocking(False)
        self._socket.bind(str(self.path))
        self._socket.listen(MAX_STREAMS)
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        """Stop listening and cancel what is being served."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        self._socket.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Out of file descriptors it waits for better times, and says so once until they come."""
        loop, told = asyncio.get_running_loop(), False
        while True:
            try:
                connected, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                if not told:
                    log.warning("no stream can be accepted for now: %s", error)
                told = True
                await asyncio.sleep(_PAUSE_S)
            else:
                told = False
                self._accept(connected)

    def _accept(self, connected: socket.socket) -> None:
        if len(self._tasks) >= MAX_STREAMS:
            log.debug("refused a stream: %d are being served", MAX_STREAMS)
            connected.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(Pipe(connected)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, pipe: Pipe) -> None:
        try:
            peer, topic = await read_stream_info(pipe, _INFO_S)
            handler = self.handlers[topic]
        except (LinkError, KeyError):
            pipe.close()
            return
        except asyncio.CancelledError:
            pipe.close()
            raise
        stream = P2pStream(peer, pipe)
        self.on_stream(stream)
        try:
            await handler(stream)
        except (LinkError, PeerFault) as error:
            log.debug("stream of %s to %s ended: %r", peer, topic, error)
        except Exception:
            log.exception("the handler of %s failed on a stream of %s: a bug of ours", topic, peer)
        finally:
            await stream.close()
