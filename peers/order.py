"""The owner's word to a whole run: pause, go on, end. Only the run's own key can say it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from peers.link import VOLUNTEERS, Link, learn_run, start_node
from peers.roles.bootstrap import OWNER_KEY
from peers.station import Station
from swarmnet.config import PeerConfig
from swarmnet.errors import IdentityError
from swarmnet.exchange.membership import Status
from swarmnet.net.phonebook import Order
from swarmnet.wire.invite import Invite

SPREAD_S = 1.0
"""How long the order's node stays, so that the DHT's replicas have it before it goes."""


def give_order(folder: Path, settings: PeerConfig, invite: Invite, order: Order) -> int:
    """Publish ``order``, signed with the key that ``swarmnet bootstrap`` left in ``folder``.

    Returns the peers that were alive to hear it. Raises IdentityError, UnreachableError.
    """
    key = folder if folder.name == OWNER_KEY else folder / OWNER_KEY
    if not key.exists():
        raise IdentityError(f"{key} does not exist: give the folder of `swarmnet bootstrap --out`")
    settings = settings.model_copy(update={"identity": key})
    station = Station.open(key.parent / "order", "owner", settings)
    try:
        if station.identity.peer_id != invite.owner:
            raise IdentityError(f"{key} is not the key of the run that the invite names")
        return station.run(_publish(station, invite, order))
    finally:
        station.close()


async def _publish(station: Station, invite: Invite, order: Order) -> int:
    node = await start_node(station, invite)
    try:
        run = await learn_run(station, node, invite, None)
        link = await Link.join(station, node, run, invite.owner, _status)
    except BaseException:
        await node.close()
        raise
    try:
        await link.phonebook.command(order)
        await asyncio.sleep(SPREAD_S)
        return len(link.of_role(*VOLUNTEERS))
    finally:
        await link.leave()


def _status() -> Status:
    return Status(incarnation=0, counter=0, state="syncing", role="owner")
