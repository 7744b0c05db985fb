"""What a peer gives on request: the run file, its state to a joiner, its weights to an export.

A copy of the state is made by the training thread between two steps; asking for it waits for the
next one. A peer that is syncing gives nothing but the run file.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from swarmnet.errors import DeadlinePassed, LinkError, PayloadError, StreamCut
from swarmnet.events import StateServed
from swarmnet.exchange.transport import FrameStream, Transport
from swarmnet.net.transfer import Limits, Partial, Served, fetch, serve_blob
from swarmnet.train import parcel
from swarmnet.wire.messages import Count, Get, Seconds

TOPIC = "give"
DEADLINE_S = 20.0
COPY_S = 60.0
"""The longest inner step that a joiner waits for."""
TRIES = 3
MAX_COPIES = 2
"""States that are given away at once; each is a copy of the whole."""


@dataclass(frozen=True)
class Portrait:
    """One peer's state at a step boundary, and the numbers that go with it."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Facts(BaseModel):
    """The numbers that must go with a state, as a stranger may write them."""

    model_config = ConfigDict(strict=True, extra="ignore")
    step: Count
    tokens: Count
    elapsed_s: Seconds
    met: bool


class Easel:
    """Where the network asks for portraits and the training thread paints them."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[concurrent.futures.Future[Portrait]] = queue.SimpleQueue()

    def want(self) -> concurrent.futures.Future[Portrait]:
        future: concurrent.futures.Future[Portrait] = concurrent.futures.Future()
        self._wanted.put(future)
        return future

    @property
    def wanted(self) -> bool:
        """Somebody waits for a portrait."""
        return not self._wanted.empty()

    def paint(self, make: Callable[[], Portrait]) -> None:
        """Training thread, between steps: one portrait serves everybody who waits."""
        portrait: Portrait | None = None
        while not self._wanted.empty():
            future = self._wanted.get()
            if future.set_running_or_notify_cancel():
                portrait = portrait or make()
                future.set_result(portrait)


class Giver:
    """Serves the ``give`` topic of one peer."""

    def __init__(
        self,
        run_file: bytes,
        easel: Easel,
        ready: Callable[[], bool],
        emit: Callable[[StateServed], None],
    ) -> None:
        self._run_file = run_file
        self._easel = easel
        self._ready = ready
        self._emit = emit
        self._copies = asyncio.Semaphore(MAX_COPIES)

    async def handle(self, stream: FrameStream) -> None:
        get = Get.parse(await stream.receive(DEADLINE_S))
        if get.what == "run":
            await serve_blob(stream, get, await Served.prepare({}, self._run_file), DEADLINE_S)
        elif self._ready():
            async with self._copies:
                await self._give_state(stream, get)
        else:
            raise StreamCut("nothing to give while syncing")
        await stream.close()

    async def _give_state(self, stream: FrameStream, get: Get) -> None:
        try:
            async with asyncio.timeout(COPY_S):
                portrait = await asyncio.wrap_future(self._easel.want())
        except TimeoutError:
            raise DeadlinePassed("no step ended in time for a copy of the state") from None
        facts, content = await asyncio.to_thread(_parcel, portrait, get.what == "weights")
        served = await Served.prepare(facts, content)
        began = time.monotonic()
        await serve_blob(stream, get, served, DEADLINE_S)
        seconds = time.monotonic() - began
        self._emit(StateServed(to=stream.peer, bytes=len(served.blob), seconds=seconds))


async def ask(
    transport: Transport, peer: str, what: str, max_bytes: int
) -> tuple[dict[str, Any], bytearray]:
    """Fetch from one peer, resuming after cuts. Raises LinkError, PayloadError, PeerFault."""
    partial = Partial()
    limits = Limits(max_bytes, COPY_S + DEADLINE_S)
    get = Get.model_validate({"what": what})
    for attempt in range(TRIES):
        stream = await transport.open(peer, TOPIC, DEADLINE_S)
        held = partial.done
        try:
            return await fetch(stream, get, limits, partial)
        except LinkError:
            if attempt == TRIES - 1 or partial.done == 0:
                raise
        except PayloadError:
            # A donor that trains has moved on since the first try: its state begins anew.
            if attempt == TRIES - 1 or held == 0:
                raise
        finally:
            await stream.close()
    raise AssertionError("unreachable")


async def ask_state(transport: Transport, peer: str, what: str, max_bytes: int) -> Portrait:
    """A peer's state or weights, unpacked and checked. Raises LinkError or PeerFault."""
    facts, content = await ask(transport, peer, what, max_bytes)
    tensors = parcel.unpack(facts.pop("index", None), content)
    try:
        Facts.model_validate(facts)
    except ValidationError as error:
        raise PayloadError("a state whose facts cannot be read") from error
    return Portrait(tensors, facts)


def _parcel(portrait: Portrait, weights_only: bool) -> tuple[dict[str, Any], bytearray]:
    tensors = dict(portrait.tensors)
    if weights_only:
        tensors = {"theta": tensors["theta"]}
    index, content = parcel.pack(tensors)
    return {"index": index, **portrait.facts}, content
