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

from torch import Tensor

from swarmnet.errors import LinkError, PayloadError, PeerFault, StreamCut
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


@dataclass(frozen=True)
class Portrait:
    """One peer's state at a step boundary, and the numbers that go with it."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Easel:
    """Where the network asks for portraits and the training thread paints them."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[concurrent.futures.Future[Portrait]] = queue.SimpleQueue()

    def want(self) -> concurrent.futures.Future[Portrait]:
        future: concurrent.futures.Future[Portrait] = concurrent.futures.Future()
        self._wanted.put(future)
        return future

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

    async def handle(self, stream: FrameStream) -> None:
        get = Get.parse(await stream.receive(DEADLINE_S))
        if get.what == "run":
            served = await Served.prepare({}, self._run_file)
        elif not self._ready():
            raise StreamCut("nothing to give while syncing")
        else:
            async with asyncio.timeout(COPY_S):
                portrait = await asyncio.wrap_future(self._easel.want())
            facts, content = await asyncio.to_thread(_parcel, portrait, get.what == "weights")
            served = await Served.prepare(facts, content)
        began = time.monotonic()
        await serve_blob(stream, get, served, DEADLINE_S)
        await stream.close()
        if get.what != "run":
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
        try:
            return await fetch(stream, get, limits, partial)
        except LinkError:
            if attempt == TRIES - 1 or partial.done == 0:
                raise
        finally:
            await stream.close()
    raise AssertionError("unreachable")


async def ask_state(transport: Transport, peer: str, what: str, max_bytes: int) -> Portrait:
    """A peer's state or weights, unpacked and checked. Raises LinkError or PeerFault."""
    facts, content = await ask(transport, peer, what, max_bytes)
    tensors = parcel.unpack(facts.pop("index", None), content)
    for name in ("step", "tokens"):
        if not isinstance(facts.get(name), int) or facts[name] < 0:
            raise PayloadError(f"a state without a readable {name}")
    return Portrait(tensors, facts)


async def ask_anyone(
    transport: Transport, peers: list[str], what: str, max_bytes: int
) -> tuple[str, Portrait]:
    """The first of ``peers`` that gives. Raises LinkError when none does."""
    reasons = []
    for peer in peers:
        try:
            return peer, await ask_state(transport, peer, what, max_bytes)
        except (LinkError, PeerFault) as error:
            reasons.append(f"{peer[-6:]}: {error}")
    raise LinkError("nobody gave its state: " + "; ".join(reasons))


def _parcel(portrait: Portrait, weights_only: bool) -> tuple[dict[str, Any], bytearray]:
    tensors = dict(portrait.tensors)
    if weights_only:
        tensors = {"theta": tensors["theta"]}
    index, content = parcel.pack(tensors)
    return {"index": index, **portrait.facts}, content
