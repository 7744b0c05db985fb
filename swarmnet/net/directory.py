"""The Kademlia DHT as this project uses it: few keys, signed entries, always the latest of each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from swarmnet.errors import LinkError
from swarmnet.net.daemon import Daemon
from swarmnet.net.engine import DHTNode, PeerID
from swarmnet.net.identity import Identity
from swarmnet.net.records import LIFE_S, RECORDS, SignedRecords, body_of, key_of, sign
from swarmnet.net.skew import Skew

_RPC_S = 3.0
_CREATE_S = 20.0
log = logging.getLogger(__name__)


class Directory:
    """Our own node of the DHT. It outlives the daemon under it: see ``attach``."""

    def __init__(self, identity: Identity, fingerprint: str) -> None:
        self.published: dict[str, dict[str, Any]] = {}
        self.skew = Skew()
        self._identity = identity
        self._keys = {name: key_of(fingerprint, name) for name in RECORDS}
        self._expiry_ms: dict[str, int] = {}
        self._dht: Any = None

    async def attach(self, daemon: Daemon, peers: Iterable[str]) -> None:
        """Join through ``peers`` (connected already) over ``daemon``.

        A second call, after the first daemon died, keeps the node's place in the DHT and what it
        stored for others. Raises LinkError when the daemon dies meanwhile.
        """
        previous = self._dht
        with _translated():
            async with asyncio.timeout(_CREATE_S):
                dht = await self._create(daemon, previous.node_id if previous else None)
        if previous is not None:
            dht.protocol.storage = previous.protocol.storage
        self._dht = dht
        for peer in peers:
            await self.greet(peer)
        try:
            async with asyncio.timeout(_RPC_S):
                await dht.find_nearest_nodes([dht.node_id])
        except TimeoutError:
            log.debug("the DHT answers slowly; its other nodes will be met later")

    async def _create(self, daemon: Daemon, node_id: Any) -> Any:
        return await DHTNode.create(
            p2p=daemon.p2p,
            node_id=node_id,
            wait_timeout=_RPC_S,
            record_validator=SignedRecords(self._keys.values()),
            strict=False,
            ensure_bootstrap_success=False,
            # Every lookup asks for the latest entries, so that no cache would ever be believed.
            cache_locally=False,
            cache_nearest=0,
            cache_on_store=False,
            cache_refresh_before_expiry=0,
            reuse_get_requests=False,
        )

    def detach(self) -> None:
        """The daemon is about to go; lookups find nothing until the next ``attach``."""
        if self._dht is not None:
            self._dht.is_alive = False

    @property
    def alone(self) -> bool:
        """No other node is known: nobody sees what we publish."""
        return self._dht is None or len(self._dht.protocol.routing_table.uid_to_peer_id) == 0

    @property
    def known(self) -> set[str]:
        """The peers in our node's routing table."""
        if self._dht is None:
            return set()
        table = self._dht.protocol.routing_table
        return {peer.to_base58() for peer in table.uid_to_peer_id.values()}

    async def greet(self, peer: str) -> None:
        """Make a connected peer a neighbour, if it answers."""
        if self._dht is None:
            return
        await self._dht.protocol.call_ping(PeerID.from_base58(peer))

    async def publish(self, name: str, body: dict[str, Any]) -> None:
        """Store ``body`` as our entry of record ``name`` for half an hour, over older ones.

        When it is refused, an earlier life of this peer wrote a later expiry: go above that.
        Raises LinkError when there is no DHT; the entry is stored again after a restart.
        """
        self.published[name] = body
        if not await self._store(name, body):
            await self._outbid(name)
            if not await self._store(name, body):
                log.debug("record %s was not stored", name)

    async def lookup(self, name: str) -> dict[str, dict[str, Any]]:
        """Every peer's verified entry of record ``name``, by peer id; nothing when cut off."""
        entries = await self._entries(name)
        if name == "peers":
            me = self._identity.peer_id
            written = {peer: expiry - LIFE_S for peer, (_, expiry) in entries.items() if peer != me}
            self.skew.look(written, time.time())
        return {peer: body_of(value) for peer, (value, _) in entries.items()}

    async def _entries(self, name: str) -> dict[str, tuple[Any, float]]:
        if self._dht is None:
            return {}
        with _translated():
            found = await self._dht.get(self._keys[name], latest=True)
        return dict(found.value) if found is not None else {}

    async def _store(self, name: str, body: dict[str, Any]) -> bool:
        if self._dht is None:
            return True
        expiry_ms = max(int((time.time() + LIFE_S) * 1000), self._expiry_ms.get(name, 0) + 1)
        self._expiry_ms[name] = expiry_ms
        key = self._keys[name]
        value = sign(self._identity, key, body, expiry_ms)
        me = self._identity.peer_id
        with _translated():
            return bool(await self._dht.store(key, value, expiry_ms / 1000, subkey=me))

    async def _outbid(self, name: str) -> None:
        mine = (await self._entries(name)).get(self._identity.peer_id)
        if mine is not None:
            self._expiry_ms[name] = max(self._expiry_ms[name], round(mine[1] * 1000))


@contextmanager
def _translated() -> Iterator[None]:
    """hivemind lets its own and the daemon's failures out in many types: all mean no DHT now."""
    try:
        yield
    except Exception as error:
        raise LinkError(f"the DHT does not answer: {error!r}") from error
