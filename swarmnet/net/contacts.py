"""Whom a node knows and where they listen: from the invite, their records, and meetings before."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from multiaddr import Multiaddr

from swarmnet.errors import AddressError
from swarmnet.net.addressbook import MAX_ADDRESSES, MAX_PEERS, Entry
from swarmnet.net.daemon import bare
from swarmnet.wire.invite import parse_address, peer_of

MAX_KNOWN = 4096
"""Peers whose addresses are held; a run that is larger finds the others in the DHT."""
MAX_WANTED = 32
"""Of those that we met or heard of, so many are missed when they are not there."""
MAX_RELAYS = 3
CIRCUIT = "p2p-circuit"


@dataclass(frozen=True)
class _Met:
    at: float
    addresses: tuple[Multiaddr, ...]


class Contacts:
    """One node's knowledge of others; addresses are without ``/p2p/ID``. No IO."""

    def __init__(self, me: str, bootstrap: Iterable[str], remembered: Iterable[Entry] = ()) -> None:
        """Raises AddressError when a bootstrap address names no peer."""
        self.bootstraps = by_peer(bootstrap, me)
        self._me = me
        self._published: dict[str, list[Multiaddr]] = {}
        self._relays: dict[str, None] = {}
        self._met: dict[str, _Met] = {}
        self._left: dict[str, None] = {}
        for entry in sorted(remembered, key=lambda entry: entry.met):
            if entry.peer != me:
                self._met[entry.peer] = _Met(entry.met, tuple(map(bare, entry.addresses)))
                if entry.relays:
                    self._relays[entry.peer] = None

    def learn(self, peer: str, addresses: Iterable[str], relays: bool) -> None:
        """What ``peer`` published of itself; what is no address is left out."""
        if peer not in self._published and len(self._published) >= MAX_KNOWN:
            self._published.pop(next(iter(self._published)))
        found = []
        for text in addresses:
            with suppress(AddressError):
                if peer_of(text) == peer:
                    found.append(bare(parse_address(text)))
        self._published[peer] = found
        self._left.pop(peer, None)
        if relays:
            self._relays[peer] = None
        else:
            self._relays.pop(peer, None)

    def forget(self, peer: str) -> None:
        """It left in good order: nobody misses it, though its connection may last a while."""
        self._left[peer] = None
        if len(self._left) > MAX_KNOWN:
            self._left.pop(next(iter(self._left)))
        for book in (self._published, self._met, self._relays):
            book.pop(peer, None)

    def meet(self, connected: Mapping[str, Iterable[Multiaddr]], wall: float) -> bool:
        """We are connected to these at this moment; whether one of them, or its address, is new."""
        news = False
        for peer, seen in connected.items():
            if peer in self._left:
                continue
            addresses = (self._published.get(peer) or list(seen))[:MAX_ADDRESSES]
            before = self._met.pop(peer, None)
            self._met[peer] = _Met(wall, tuple(addresses))
            news |= before is None or before.addresses != tuple(addresses)
        while len(self._met) > MAX_PEERS:
            self._met.pop(next(iter(self._met)))
        return news

    def where(self, peer: str) -> list[Multiaddr]:
        """All that we know of where ``peer`` listens, its own word first."""
        met = self._met.get(peer)
        known = [
            *self._published.get(peer, ()),
            *self.bootstraps.get(peer, ()),
            *(met.addresses if met else ()),
        ]
        return list(dict.fromkeys(known))

    def published(self, peer: str) -> list[Multiaddr]:
        return self._published.get(peer, [])

    def wanted(self) -> list[str]:
        """Whom to miss: the bootstraps, those whom we met, newest first, and some of the others."""
        others = [peer for peer, addresses in self._published.items() if addresses]
        known = dict.fromkeys([*reversed(self._met), *others])
        return list(dict.fromkeys([*self.bootstraps, *islice(known, MAX_WANTED)]))

    def ways_in(self) -> list[str]:
        """Whom to ask at the start, all of them: bootstraps, then the book, newest first."""
        return list(dict.fromkeys([*self.bootstraps, *reversed(self._met)]))

    def relays(self, connected: Mapping[str, Iterable[Multiaddr]]) -> tuple[str, ...]:
        """Full addresses of those connected to us who may relay, one address for each.

        With two addresses of one relay, or one relay that is gone, the daemon waits for minutes
        before it books a slot anywhere.
        """
        known = dict.fromkeys([*reversed(self._relays), *self.bootstraps])
        chosen = []
        for peer in known:
            direct = next((way for way in connected.get(peer, ()) if is_direct(way)), None)
            if direct is not None:
                chosen.append(f"{direct}/p2p/{peer}")
        return tuple(chosen[:MAX_RELAYS])

    def entries(self) -> tuple[Entry, ...]:
        """The book as it is to be written, newest first."""
        return tuple(
            Entry(
                peer=peer,
                addresses=tuple(str(address) for address in met.addresses),
                met=met.at,
                relays=peer in self._relays,
            )
            for peer, met in reversed(self._met.items())
        )


def is_direct(address: Multiaddr) -> bool:
    """TCP, from machine to machine, through no relay."""
    names = [protocol.name for protocol in address.protocols()]
    if CIRCUIT in names or "tcp" not in names:
        return False
    host = host_of(address)
    return host is None or not ipaddress.ip_address(host).is_loopback


def host_of(address: Multiaddr) -> str | None:
    """The IP address in it; None when it begins with a name."""
    for protocol in address.protocols():
        if protocol.name in ("ip4", "ip6"):
            return str(address.value_for_protocol(protocol.name))
    return None


def by_peer(addresses: Iterable[str], me: str) -> dict[str, list[Multiaddr]]:
    """Addresses without ``/p2p``, grouped by peer, our own left out. Raises AddressError."""
    known: dict[str, list[Multiaddr]] = {}
    for text in addresses:
        peer = peer_of(text)
        if peer != me:
            known.setdefault(peer, []).append(bare(text))
    return known
