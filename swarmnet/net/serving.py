"""The streams that others open to us: one Unix socket, a handler per topic, a bounded crowd."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from swarmnet.errors import LinkError, PeerFault
from swarmnet.exchange.transport import Handler
from swarmnet.net.control import READ_BUFFER_BYTES, read_stream_info
from swarmnet.net.stream import P2pStream

MAX_STREAMS = 64
"""Streams served at once; a further one is closed before a byte of it is read."""
_INFO_S = 5.0
log = logging.getLogger(__name__)


class StreamServer:
    """Runs one task per incoming stream; what a handler raises ends that stream and no more."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.handlers: dict[str, Handler] = {}
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(
            self._accept, path=str(self.socket), limit=READ_BUFFER_BYTES
        )

    async def close(self) -> None:
        """Stop listening and cancel what is being served."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_STREAMS:
            log.debug("refused a stream: %d are being served", MAX_STREAMS)
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_INFO_S):
                peer, topic = await read_stream_info(reader)
            handler = self.handlers[topic]
        except (OSError, EOFError, TimeoutError, KeyError, ValueError):
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        stream = P2pStream(peer, reader, writer)
        try:
            await handler(stream)
        except (LinkError, PeerFault) as error:
            log.debug("stream of %s to %s ended: %r", peer, topic, error)
        except Exception:
            log.exception("the handler of %s failed on a stream of %s: a bug of ours", topic, peer)
        finally:
            await stream.close()
