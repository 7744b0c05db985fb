"""The shell of a trainer: loads become trips, letters become receipts, deadlines are kept.

It lives in the network's event loop; what is decided is decided in ``trips``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from swarmnet.errors import MessageError
from swarmnet.exchange.transport import Transport
from swarmnet.pipeline.acts import Say
from swarmnet.pipeline.hub import Hub
from swarmnet.pipeline.post import Post
from swarmnet.pipeline.service import Limits
from swarmnet.pipeline.trip import Finished, Load
from swarmnet.pipeline.trips import TripBook
from swarmnet.wire.letters import Backward, Fates, Forward, Receipt
from swarmnet.wire.messages import Message

LOOK_S = 0.5
SHORTEST_S = 0.005


class Traveller:
    """Keeps trips under way while ``loads`` gives microbatches; None ends the supply for now."""

    def __init__(
        self,
        transport: Transport,
        book: TripBook,
        loads: Callable[[], Load | None],
        limits: Limits | None = None,
    ) -> None:
        """``limits``: every boundary passes through this trainer, and is no larger."""
        self.book = book
        self.hub = Hub(book.me, limits, book.is_open) if limits is not None else None
        self.post = Post(transport, self)
        self.view: Callable[[], Mapping[int, Sequence[str]]] = dict
        """Who serves which stage, as known now."""
        self.finished: Callable[[Finished], None] = lambda _: None
        self._loads = loads
        self._moved = asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    async def open(self) -> None:
        await self.post.open()

    async def run(self) -> None:
        """Until cancelled."""
        looked_at = float("-inf")
        while True:
            self._moved.clear()
            now = self._clock()
            if now >= looked_at + LOOK_S:
                looked_at = now
                self._perform(self.book.serve(self.view(), now))
            self._perform(self.book.tick(now))
            self._begin(now)
            self._report()
            at = min(self.book.next_at(now), looked_at + LOOK_S)
            await self._pause(max(at - now, SHORTEST_S))

    async def farewell(self) -> None:
        """Let all caches go; returns when the letters have left, or cannot."""
        self._perform(self.book.farewell())
        await self.post.drained()

    # ---- letters (Inbox) --------------------------------------------------------------------

    def room(self, letter: Message) -> int:
        if self.hub is None:
            raise MessageError("nobody sends this trainer tensors")
        return self.hub.room(letter)

    def letter(self, peer: str, letter: Message, payload: memoryview) -> None:
        now = self._clock()
        match letter:
            case Receipt():
                self._perform(self.book.on_receipt(peer, letter, now))
            case Fates():
                self._perform(self.book.on_fates(peer, letter, now))
            case Forward() if self.hub is not None:
                self._send(self.hub.forward(peer, letter, payload))
            case Backward() if self.hub is not None:
                self._send(self.hub.backward(peer, letter, payload))
            case _:
                raise MessageError(f"{letter.kind.name} is not for a trainer")
        self._moved.set()

    def lost(self, peer: str) -> None:
        self._perform(self.book.on_lost(peer, self._clock()))
        self._moved.set()

    # ---- inside -----------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        while self.book.room() and not self.book.unserved():
            load = self._loads()
            if load is None:
                return
            self._perform(self.book.begin(load, now))

    def _report(self) -> None:
        done, self.book.finished = self.book.finished, []
        for finished in done:
            self.finished(finished)

    def _perform(self, acts: Iterable[Say]) -> None:
        for act in acts:
            out = act if self.hub is None else self.hub.dispatch(act)
            if isinstance(out, Say):
                self._send([out])
            else:
                self._perform(self.book.on_receipt(act.peer, out, self._clock()))

    def _send(self, letters: Iterable[Say]) -> None:
        for say in letters:
            self.post.send(say.peer, say.letter, say.payload)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            return
