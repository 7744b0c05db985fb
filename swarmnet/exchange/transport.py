"""What the exchange asks of a network: ``net`` gives it over libp2p, ``sim`` in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from swarmnet.wire import Frame


class FrameStream(Protocol):
    """A two-way, ordered, authenticated stream of frames to one peer. There is no half-close.

    The side that reads last closes; every message ends by its length. ``deadline_s`` bounds the
    time without progress of one call, not the whole exchange.
    """

    @property
    def peer(self) -> str:
        """The other end's peer id, proven by the transport."""
        ...

    async def send(self, frame: Frame, deadline_s: float) -> None:
        """Hand over one frame; waits while the other side does not read (back-pressure).

        Raises:
            StreamCut: the stream is gone. DeadlinePassed: nothing moved for ``deadline_s``.
        """
        ...

    async def receive(self, deadline_s: float, into: memoryview | None = None) -> Frame:
        """The next whole frame. Raises StreamCut, DeadlinePassed, or FrameError on bad bytes.

        The body of a PART that fits may be placed at the start of ``into``; ``Frame.body`` is a
        view of that memory then. After a failure ``into`` may hold a part of it.
        """
        ...

    async def close(self) -> None:
        """End both directions. Never raises, may be called twice."""
        ...


Handler = Callable[[FrameStream], Awaitable[None]]


class Transport(Protocol):
    """Opens streams to peers by id and serves the streams that peers open to us."""

    @property
    def me(self) -> str: ...

    async def open(self, peer: str, topic: str, deadline_s: float) -> FrameStream:
        """Raises LinkError when the peer cannot be reached or does not serve ``topic``."""
        ...

    async def serve(self, topic: str, handler: Handler) -> None:
        """Run ``handler`` for every stream opened to ``topic``; it owns and closes the stream.

        A topic that is served already gets this handler for its next streams.
        """
        ...
