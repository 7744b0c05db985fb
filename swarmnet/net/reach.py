"""How others reach this peer: what a referee found out, and through whom if they cannot."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice

from multiaddr import Multiaddr

from swarmnet.errors import LinkError, PeerFault
from swarmnet.net import dialback
from swarmnet.net.contacts import CIRCUIT, Contacts
from swarmnet.net.control import Control
from swarmnet.net.daemon import Listen, Reach, Standing, bare
from swarmnet.net.stream import P2pStream
from swarmnet.wire.invite import peer_of
from swarmnet.wire.messages import Dialed

REFEREES = 3
"""Peers who are asked at the start whether they can open a connection to us."""
ASKS = 5
RELAYS_AGAIN_S = 60.0
log = logging.getLogger(__name__)


class Reachability:
    """What one node knows of it; its daemon is started with ``standing``.

    ``given`` is what the user or the book says: with reach ``unknown`` others are asked, at
    ``topic``, unless it is plain. On loopback nobody asks.
    """

    def __init__(self, contacts: Contacts, listen: Listen, given: Standing, topic: str) -> None:
        self._contacts = contacts
        self._listen = listen
        self._topic = topic
        self._asks_left = ASKS
        self._chose_at = float("-inf")
        self.may_ask = not listen.loopback and _plain(contacts, listen, given.reach) == "unknown"
        self.standing = replace(given, reach=_plain(contacts, listen, given.reach))
        self.seen_as = ""
        """The address under which a referee reached us."""

    def remember(self, reach: Reach) -> None:
        """What an earlier life found out, until somebody was asked."""
        if self.may_ask:
            self.standing = replace(self.standing, reach=reach)

    def addresses(self, visible: Iterable[Multiaddr]) -> list[str]:
        """Where to dial us, without ``/p2p``: announced, proven, through relays, the others."""
        first = [str(bare(address)) for address in self._listen.announce]
        first += [self.seen_as] if self.seen_as else []
        if self.standing.reach == "private":
            first += [f"{relay}/{CIRCUIT}" for relay in self.standing.relays]
        own = [text for text in map(str, visible) if CIRCUIT not in text]
        own.sort(key=lambda a: ("/127." in a or "/ip6/::1/" in a, "/ip6/" in a))
        return list(dict.fromkeys(first + own))

    async def ask(self, control: Control, peers: Iterable[str], port: int) -> Reach:
        """Let ``peers`` try ``port``, one after another until one of them can tell."""
        verdict = await self._verdict(control, peers, port) if self.may_ask else None
        if verdict is not None:
            reach: Reach = "public" if verdict.reached else "private"
            self.standing = replace(self.standing, reach=reach)
            if verdict.reached:
                family = ipaddress.ip_address(verdict.seen).version
                self.seen_as = f"/ip{family}/{verdict.seen}/tcp/{port}"
        return self.standing.reach

    async def ask_again(self, control: Control, peers: Iterable[str], port: int) -> bool:
        """Nobody could say at the start, perhaps a peer that came since can: whether we are public.

        Asks a few times in a node's life, and only while nothing is known.
        """
        if not self.may_ask or self.standing.reach != "unknown" or not self._asks_left:
            return False
        self._asks_left -= 1
        return await self.ask(control, peers, port) == "public"

    async def _verdict(self, control: Control, peers: Iterable[str], port: int) -> Dialed | None:
        for peer in islice(peers, REFEREES):
            try:
                pipe = await control.open(peer, self._topic, dialback.ANSWER_S)
                stream = P2pStream(peer, pipe)
                try:
                    verdict = await dialback.ask(stream, port)
                    if verdict.seen:
                        ipaddress.ip_address(verdict.seen)
                        return verdict
                finally:
                    await stream.close()
            except (LinkError, PeerFault, ValueError) as error:
                log.debug("%s could not say how we are reached: %s", peer, error)
        return None

    def choose_relays(self, connected: Mapping[str, Iterable[Multiaddr]]) -> bool:
        """Whether a private peer has to start its daemon anew, because its relays are others now.

        It keeps those that it has while one of them is there, and changes once a minute at most.
        """
        found = self._contacts.relays(connected)
        relays = self.standing.relays
        kept = any(peer_of(relay) in connected for relay in relays)
        if self.standing.reach != "private" or self._listen.loopback or kept or not found:
            return False
        if relays and time.monotonic() - self._chose_at < RELAYS_AGAIN_S:
            return False
        self.standing = replace(self.standing, relays=found)
        self._chose_at = time.monotonic()
        return True


def _plain(contacts: Contacts, listen: Listen, given: Reach) -> Reach:
    """What is known before anybody is asked. Who begins a run or is announced is public."""
    if listen.loopback or given != "unknown":
        return "unknown" if listen.loopback else given
    return "public" if not contacts.bootstraps or listen.announce else "unknown"
