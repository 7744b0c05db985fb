"""What a peer gives on request: the run file, its state to a joiner, its weights to an export.

A copy of the state is made by the training thread between two steps; asking for it waits for the
next one. A peer that is syncing gives nothing but the run file. While it trains, a peer spends no
more than a share of its machine on giving, however many ask. What a joiner of a stage needs to
follow its mates' steps is not counted, the first time: so much goes to a member too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from peers.portrait import Easel
from peers.shelf import Goods, Shelf, Shown
from peers.stepgiver import StepGiver
from swarmnet.config import PeerConfig
from swarmnet.errors import DonorBusy
from swarmnet.events import StateServed
from swarmnet.exchange.transport import FrameStream
from swarmnet.net.pacing import Pace
from swarmnet.net.transfer import DEADLINE_S, Blob, decline, give
from swarmnet.wire.messages import Busy, Get

TOPIC = "give"
DONOR_STATES = ("training", "paused", "consensus", "serving")
"""A peer that is syncing has nothing sound to give."""
RETRY_S = 1.0
FRESH_S = 10.0


@dataclass(frozen=True)
class Terms:
    """How a peer gives: to how many at once, how fast while it trains, how fresh."""

    takers: int
    pace: Pace
    fresh_s: float

    @classmethod
    def of(cls, peer: PeerConfig, fresh_s: float = FRESH_S) -> Self:
        return cls(peer.give_to, Pace.of(peer.give_share, _cores()), fresh_s)


class Giver:
    """Serves the ``give`` topic of one peer that has a state."""

    def __init__(
        self,
        run_file: bytes,
        easel: Easel,
        state: Callable[[], str],
        terms: Terms,
        emit: Callable[[StateServed], None],
    ) -> None:
        """``state``: this peer's, as the others see it."""
        self.steps = StepGiver(self._pause, emit)
        self._run_file = Blob(run_file)
        self._shelf = Shelf(easel, terms.fresh_s)
        self._state = state
        self._terms = terms
        self._emit = emit
        self._takers = 0
        self._copiers = 0

    async def handle(self, stream: FrameStream) -> None:
        get = Get.parse(await stream.receive(DEADLINE_S))
        if get.what == "run":
            await give(stream, self._run_file, DEADLINE_S)
        elif self._state() not in DONOR_STATES:
            await decline(stream, Busy(reason="syncing", retry_s=RETRY_S))
        elif get.what == "step":
            await self.steps.give(stream, get.step)
        elif self._takers >= self._terms.takers:
            await decline(stream, Busy(reason="busy", retry_s=RETRY_S))
        else:
            await self._give_state(stream, weights_only=get.what == "weights")
        await stream.close()

    @property
    def copied(self) -> bool:
        """Somebody takes a whole state, or waits for its copy."""
        return self._copiers > 0

    async def _give_state(self, stream: FrameStream, *, weights_only: bool) -> None:
        self._takers += 1
        self._copiers += not weights_only
        try:
            shown = await self._shelf.take(self._state())
            try:
                await self._give_copy(stream, shown, weights_only)
            finally:
                self._shelf.back(shown)
        except DonorBusy as busy:
            await decline(stream, Busy(reason="busy", retry_s=busy.retry_s))
        finally:
            self._takers -= 1
            self._copiers -= not weights_only

    async def _give_copy(self, stream: FrameStream, shown: Shown, weights_only: bool) -> None:
        form = shown.form(weights_only)
        goods = Goods(shown, form, await form.hashes(self._pause))
        began = time.monotonic()
        given = await give(stream, goods, DEADLINE_S, self._pause)
        if given:
            seconds = time.monotonic() - began
            self._emit(StateServed(to=stream.peer, bytes=given, seconds=seconds))

    async def _pause(self, nbytes: int) -> None:
        """Who does not train has nothing better to do."""
        if self._state() == "training":
            wait_s = self._terms.pace.wait_s(nbytes, time.monotonic())
            if wait_s > 0:
                await asyncio.sleep(wait_s)


async def serve_run_file(run_file: bytes, stream: FrameStream) -> None:
    """The ``give`` topic of a peer that holds no weights."""
    get = Get.parse(await stream.receive(DEADLINE_S))
    if get.what == "run":
        await give(stream, Blob(run_file), DEADLINE_S)
    else:
        await decline(stream, Busy(reason="syncing", retry_s=RETRY_S))
    await stream.close()


def _cores() -> int:
    """Those that this process may use."""
    own = getattr(os, "sched_getaffinity", None)
    return len(own(0)) if own else os.cpu_count() or 1
