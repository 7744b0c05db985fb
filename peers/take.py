"""What a peer asks of others: the run file, a state to join with, weights for an export."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from peers.give import TOPIC
from peers.halfway import Halfway, Keep
from peers.portrait import Facts, Portrait
from swarmnet.config import MAX_RUN_FILE_BYTES
from swarmnet.errors import PayloadError
from swarmnet.events import DonorLeft, Event
from swarmnet.exchange.transport import Transport
from swarmnet.net.download import NO_STASH, Download, Errand, hash_draft
from swarmnet.net.transfer import DEADLINE_S, Limits, fetch_blob
from swarmnet.pipeline.steplog import Logged
from swarmnet.train.parcel import Parcel
from swarmnet.wire.messages import Get

STATE, WEIGHTS = Get(what="state"), Get(what="weights")
STEP_S = 5.0
"""Without progress; others may keep the same step."""
WEIGHTS_S = 100.0
"""An export waits so long for one peer: an inner step, and a share of a busy peer's machine."""
TRIES = 3


def anything(facts: Mapping[str, Any]) -> None:
    """Whatever the numbers of a state say."""


@dataclass(frozen=True)
class Wish:
    """Whose state, and what must be true of it.

    ``check`` reads the numbers that go with a state and raises PayloadError when they cannot be.
    ``donors``, ``alike``, ``waits`` and ``patience_s`` as in ``net.download.Errand``. ``keep``: for
    a restart in the middle; its folder is the caller's to remove.
    """

    donors: Callable[[], Sequence[str]]
    patience_s: float
    check: Callable[[Mapping[str, Any]], None] = anything
    alike: bool = False
    waits: bool = True
    keep: Keep | None = None


@dataclass(frozen=True)
class Taken:
    """A sound state. ``donors`` brought parts of it; the first one's numbers go with it."""

    portrait: Portrait
    donors: tuple[str, ...]
    nbytes: int
    """What had to be sent."""


async def take_run_file(transport: Transport, peer: str) -> bytes:
    """Raises LinkError, PeerFault."""
    limits = Limits(MAX_RUN_FILE_BYTES, DEADLINE_S)
    _, content = await fetch_blob(transport, peer, TOPIC, Get(what="run"), limits)
    return bytes(content)


async def take_state(
    transport: Transport,
    tensors: Mapping[str, Tensor],
    wish: Wish,
    emit: Callable[[Event], None],
    get: Get = STATE,
) -> Taken:
    """A whole state, written into ``tensors``; columns that are the same there are not sent.

    Called again with the same ``tensors`` after a failure, it goes on where it was.

    Raises:
        UnreachableError: nobody gives it.
    """
    parcel = Parcel(tensors)

    def version(described: Mapping[str, Any]) -> int:
        if described.get("index") != parcel.index:
            raise PayloadError("the state is of another model or of another optimizer")
        parcel.readable_scalars(described.get("scalars"))
        wish.check(described)
        return _facts(described).step

    errand = Errand(TOPIC, get, wish.donors, version, wish.patience_s, wish.alike, wish.waits)
    stash = await asyncio.to_thread(Halfway, wish.keep, parcel) if wish.keep else None
    held = await hash_draft(parcel)
    fetched = await Download(transport, parcel, errand, emit).run(held, stash or NO_STASH)
    parcel.take_scalars(fetched.describes["scalars"])
    facts = {k: v for k, v in fetched.describes.items() if k not in ("index", "scalars")}
    return Taken(Portrait(parcel.tensors, facts), fetched.donors, fetched.nbytes)


async def take_weights(transport: Transport, peer: str, numel: int) -> Portrait:
    """One peer's own weights, finite. Raises UnreachableError when it gives none."""
    failed: list[Event] = []

    def donors() -> list[str]:
        return [peer] if len(failed) < TRIES else []

    def note(event: Event) -> None:
        if isinstance(event, DonorLeft):
            failed.append(event)

    wish = Wish(donors, WEIGHTS_S, alike=True, waits=False)
    empty = {"theta": torch.zeros(numel)}
    return (await take_state(transport, empty, wish, note, WEIGHTS)).portrait


async def take_step(transport: Transport, peer: str, step: int, numel: int) -> Logged:
    """The step of ``peer``'s stage that led to ``step``.

    Raises:
        NotKept: it does not have that. LinkError, PeerFault.
    """
    get, limits = Get(what="step", step=step), Limits(4 * numel, STEP_S)
    describes, content = await fetch_blob(transport, peer, TOPIC, get, limits)
    if len(content) != 4 * numel:
        raise PayloadError(f"a step of {len(content)} bytes instead of {4 * numel}")
    mean = torch.frombuffer(content, dtype=torch.float32)
    if not bool(mean.isfinite().all()):
        raise PayloadError("a step with values that are not finite")
    return Logged.unpack(describes, mean)


def _facts(described: Mapping[str, Any]) -> Facts:
    try:
        return Facts.model_validate(dict(described))
    except ValidationError as error:
        raise PayloadError("a state whose facts cannot be read") from error
