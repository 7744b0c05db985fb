"""Copies of a donor's state that are being given away: few, shared, as fresh as need be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from peers.portrait import Easel, Portrait
from swarmnet.errors import DeadlinePassed, DonorBusy
from swarmnet.train.parcel import Parcel

COPY_S = 60.0
"""The longest inner step that a joiner waits for."""
MAX_COPIES = 2
"""Copies of the whole state in memory, at most."""
HOLD_S = 20.0
"""A copy that nobody asks for any more is kept so long, for whoever was cut off comes back."""
PAINT_SHARE = 0.02
"""Of the training thread's time goes into copies, at most."""
RETRY_S = 2.0
HASHED_AT_ONCE = 16
HASH_COST = 0.15
"""Of what sending costs."""


class Shown:
    """One copy of the state, made while the peer was ``doing`` what its word then was."""

    def __init__(self, portrait: Portrait, doing: str) -> None:
        self.doing = doing
        self.facts = portrait.facts
        self.tensors = portrait.tensors
        self.made_at = time.monotonic()
        self.left_at = self.made_at
        self.takers = 0
        self._forms: dict[bool, Form] = {}

    def form(self, weights_only: bool) -> Form:
        if weights_only not in self._forms:
            names = ["theta"] if weights_only else list(self.tensors)
            self._forms[weights_only] = Form({name: self.tensors[name] for name in names})
        return self._forms[weights_only]


class Form:
    """What is given of a copy: all of it, or the weights alone. Hashed when first asked for."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.parcel = Parcel(tensors)
        self._hashes: list[bytes] = []
        self._lock = asyncio.Lock()

    async def hashes(self, pause: Callable[[int], Awaitable[None]]) -> Sequence[bytes]:
        """Made once, beside training, in pieces that the pace allows."""
        async with self._lock:
            while (first := len(self._hashes)) < self.parcel.chunks:
                last = min(first + HASHED_AT_ONCE, self.parcel.chunks)
                nbytes = sum(self.parcel.size(chunk) for chunk in range(first, last))
                await pause(int(HASH_COST * nbytes))
                self._hashes += await asyncio.to_thread(self.parcel.hashes, first, last)
        return self._hashes


class Goods:
    """One asker's view of a form; implements ``net.transfer.Goods``."""

    def __init__(self, shown: Shown, form: Form, hashes: Sequence[bytes]) -> None:
        parcel = form.parcel
        self._parcel = parcel
        self._buffer = parcel.buffer()
        self.describes: Mapping[str, Any] = {
            "index": parcel.index,
            "scalars": parcel.scalars(),
            **shown.facts,
        }
        self.hashes = hashes
        self.nbytes = parcel.nbytes

    def chunk(self, index: int) -> memoryview:
        return self._parcel.column(index, self._buffer)


class Shelf:
    """In the network's loop. A copy serves all who come while it is fresh."""

    def __init__(self, easel: Easel, fresh_s: float) -> None:
        """``fresh_s``: a newcomer gets a copy of this age, no older, unless copies are dear."""
        self._easel = easel
        self._fresh_s = fresh_s
        self._copies: list[Shown] = []
        self._lock = asyncio.Lock()

    async def take(self, doing: str) -> Shown:
        """A copy to give away; say ``back`` afterwards.

        ``doing``: this peer's state in its own word. What was copied in another is no copy any
        more: the end of a run moves the weights without a step.

        Raises:
            DonorBusy: as many copies as may be are under way. DeadlinePassed: no step ended.
        """
        async with self._lock:
            self.tidy()
            shown = self._fresh(doing) or await self._paint(doing)
            shown.takers += 1
            return shown

    def back(self, shown: Shown) -> None:
        shown.takers -= 1
        shown.left_at = time.monotonic()
        asyncio.get_running_loop().call_later(HOLD_S, self.tidy)

    def tidy(self) -> None:
        """Give the memory of copies back that nobody came for."""
        now = time.monotonic()
        self._copies = [c for c in self._copies if c.takers or now - c.left_at < HOLD_S]

    def _fresh(self, doing: str) -> Shown | None:
        fresh_s = max(self._fresh_s, self._easel.painted_s / PAINT_SHARE)
        alike = (copy for copy in self._copies if copy.doing == doing)
        newest = max(alike, key=lambda copy: copy.made_at, default=None)
        stands = newest is not None and time.monotonic() - newest.made_at <= fresh_s
        return newest if stands else None

    async def _paint(self, doing: str) -> Shown:
        unused = [copy for copy in self._copies if not copy.takers]
        for copy in unused:
            self._copies.remove(copy)
        if len(self._copies) >= MAX_COPIES:
            raise DonorBusy("as many copies of the state as may be are under way", RETRY_S)
        try:
            async with asyncio.timeout(COPY_S):
                portrait = await asyncio.wrap_future(self._easel.want())
        except TimeoutError:
            raise DeadlinePassed("no step ended in time for a copy of the state") from None
        shown = Shown(portrait, doing)
        self._copies.append(shown)
        return shown
