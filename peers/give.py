"""What a peer gives on request: the run file, its state to a joiner, its weights to an export.

A copy of the state is made by the training thread between two steps; asking for it waits for the
next one. A peer that is syncing gives nothing but the run file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from peers.portrait import Easel, Facts, Portrait
from swarmnet.errors import DeadlinePassed, LinkError, PayloadError, StreamCut
from swarmnet.events import StateServed
from swarmnet.exchange.transport import FrameStream, Transport
from swarmnet.net.transfer import Limits, Partial, Served, fetch, serve_blob
from swarmnet.train import parcel
from swarmnet.wire.messages import Get

TOPIC = "give"
DEADLINE_S = 20.0
COPY_S = 60.0
"""The longest inner step that a joiner waits for."""
TRIES = 3
MAX_COPIES = 2
"""States that are given away at once; each is a copy of the whole."""


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
