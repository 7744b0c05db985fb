"""One end of the stream between a group's leader and a member: words, and beats between them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from swarmnet.errors import LinkError, PeerFault
from swarmnet.exchange.transport import FrameStream
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Beat

BEAT_S = 0.5
"""Silence is told from waiting by these; well below the shortest deadline of a link."""


class Voice:
    """Queues words, beats while there are none, and hears the other end.

    Words are few: each follows from a join, a lane or a decision, and those are bounded.
    """

    def __init__(self, stream: FrameStream, deadline_s: float) -> None:
        self.peer = stream.peer
        self._stream = stream
        self._deadline_s = deadline_s
        self._words: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._speaking = asyncio.create_task(self._speak())

    def say(self, frame: Frame) -> None:
        self._words.put_nowait(frame)

    async def hear(self) -> Frame:
        """The next word. Raises LinkError or FrameError."""
        while True:
            frame = await self._stream.receive(self._deadline_s)
            if frame.kind is not Kind.BEAT:
                return frame

    async def finish(self) -> None:
        """Until what is queued has left; the other end reads it last and closes."""
        self._words.put_nowait(None)
        with suppress(LinkError, PeerFault):
            await self._speaking

    async def close(self) -> None:
        self._speaking.cancel()
        with suppress(asyncio.CancelledError, LinkError, PeerFault):
            await self._speaking
        await self._stream.close()

    async def _speak(self) -> None:
        """A failure is noticed by who hears: this stream has no other half."""
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    word = await self._words.get()
            except TimeoutError:
                word = Beat().frame()
            if word is None:
                return
            await self._stream.send(word, self._deadline_s)
