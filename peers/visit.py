"""A visitor of a run: it reads what is there, has no work of its own, and leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from peers.link import Link, learn_run, start_node
from peers.station import Station
from swarmnet.exchange.membership import Status
from swarmnet.wire.invite import Invite


@asynccontextmanager
async def visiting(
    station: Station, invite: Invite, role: str, given: bytes | None = None
) -> AsyncIterator[Link]:
    """A link for as long as the block lasts. Raises UnreachableError, RunMismatchError."""
    node = await start_node(station, invite)

    def status() -> Status:
        return Status(incarnation=0, counter=0, state="syncing", role=role)

    try:
        run = await learn_run(station, node, invite, given)
        link = await Link.join(station, node, run, invite.owner, status)
    except BaseException:
        await node.close()
        raise
    try:
        yield link
    finally:
        await link.leave()
