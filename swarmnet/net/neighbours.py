"""A node's connections: the first ones, those that were lost, and which way each of them goes.

A daemon that lost a peer does not look for it again, and the DHT drops whoever did not answer for
a moment. So every few seconds a look: who of those we met is gone is dialled, who is connected but
no longer in the DHT's table is greeted. Two halves of a swarm that were cut apart so become one
within seconds of the cut's end, whichever peer notices first.

A path through a relay stays one while it lasts: libp2p looks for a direct one when it dials, and
does not dial who is connected. So from time to time it is given up, when no stream is open, and
dialled again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from multiaddr import Multiaddr

from swarmnet.errors import SwarmnetError
from swarmnet.events import Event
from swarmnet.net.absences import Absences, Pauses
from swarmnet.net.contacts import Contacts
from swarmnet.net.control import Control
from swarmnet.net.directory import Directory
from swarmnet.net.paths import Paths

DIAL_S = 10.0
REDIAL_S = 5.0
PATIENCE_S = 15.0
"""So long a start goes on looking: others of the book may be starting too, after a power cut."""
BENT = Pauses(before_s=60.0, first_s=120.0, longest_s=900.0, news=False)
"""A new relayed path is left alone for a minute: libp2p is still punching its hole."""
_AGAIN_S = 1.0
_CALL_S = 5.0
_CROWD = 32
"""Dials of a start that go on side by side."""
log = logging.getLogger(__name__)
Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


@dataclass(frozen=True)
class Reached:
    """Who answered first, and why others did not."""

    peers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Neighbours:
    """Lives as long as its node; the daemon under it, seen through ``control``, may change.

    ``on_event`` hears of changes of path; ``on_healed`` is called when somebody who was lost is
    back; ``may_drop`` says whether a relayed connection may be given up for a try to do better.
    """

    def __init__(self, contacts: Contacts, directory: Directory, spawn: Spawn) -> None:
        self.contacts = contacts
        self.connected: dict[str, list[Multiaddr]] = {}
        self.on_event: Callable[[Event], None] = lambda _: None
        self.on_healed: Callable[[], None] = lambda: None
        self.may_drop: Callable[[str], bool] = lambda _: False
        self._directory = directory
        self._spawn = spawn
        luck = random.Random()
        self._cut = Absences(luck)
        self._dropped = Absences(luck)
        self._bent = Absences(luck, BENT)
        self._paths = Paths()

    @property
    def ways(self) -> dict[str, str]:
        """How each connected peer is connected."""
        return self._paths.now

    async def begin(self, control: Control, patience_s: float) -> Reached:
        """Dial those whom we know, the likeliest first, until somebody is there.

        Dials that are still on their way then are greeted when they arrive. With nobody but dead
        bootstraps to ask it gives up at once; with a book it asks again for ``patience_s``.
        """
        deadline = time.monotonic() + patience_s
        ways = self.contacts.ways_in()
        while True:
            failures: list[str] = []
            for start in range(0, len(ways), _CROWD):
                crowd = ways[start : start + _CROWD]
                reached = await self._first_of(control, crowd, deadline)
                failures += reached.failures
                if reached.peers:
                    return reached
            self.connected = await control.peers(_CALL_S)
            came = [peer for peer in ways if peer in self.connected]
            hopeless = set(ways) <= set(self.contacts.bootstraps)
            if came or hopeless or time.monotonic() + _AGAIN_S > deadline:
                return Reached(came, failures)
            await asyncio.sleep(_AGAIN_S)

    async def _first_of(self, control: Control, peers: list[str], deadline: float) -> Reached:
        dials = {self._spawn(self._dial(control, peer, DIAL_S)): peer for peer in peers}
        pending, reached = set(dials), Reached()
        while pending and not reached.peers and (left := deadline - time.monotonic()) > 0:
            done, pending = await asyncio.wait(
                pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            for dial in done:
                error = dial.exception()
                if error is None:
                    reached.peers.append(dials[dial])
                else:
                    way = self.contacts.where(dials[dial])[0]
                    reached.failures.append(f"{way}: {error}")
        for dial in pending:
            self._spawn(self._greet_after(dial, dials[dial]))
        return reached

    async def look(self, control: Control) -> bool:
        """Try what is due; whether a new neighbour, or a new address of one, is to be remembered.

        Raises LinkError when the daemon does not answer.
        """
        self.connected = await control.peers(_CALL_S)
        news = self.contacts.meet(self.connected, time.time())
        for change in self._paths.changes(self.connected):
            self.on_event(change)
        now = time.monotonic()
        cut = self._cut.look(self.contacts.wanted(), self.connected, now)
        dropped = self._dropped.look(self.connected, self._directory.known, now)
        for peer in cut.due:
            self._spawn(self._try_again(control, peer))
        for peer in dropped.due:
            self._spawn(self._directory.greet(peer))
        for peer in self._bent.look(self.ways, self._paths.direct, now).due:
            self._spawn(self._straighten(control, peer))
        if cut.returned or dropped.returned:
            self.on_healed()
        return news

    async def _dial(self, control: Control, peer: str, deadline_s: float) -> None:
        await control.connect(peer, self.contacts.where(peer), deadline_s)

    async def _try_again(self, control: Control, peer: str) -> None:
        try:
            await self._dial(control, peer, REDIAL_S)
            await self._directory.greet(peer)
        except SwarmnetError as error:
            log.debug("%s is still gone: %s", peer, error)

    async def _straighten(self, control: Control, peer: str) -> None:
        if self.may_drop(peer):
            await control.disconnect(peer, _CALL_S)
            await self._try_again(control, peer)

    async def _greet_after(self, dial: asyncio.Task[None], peer: str) -> None:
        try:
            await dial
            await self._directory.greet(peer)
        except SwarmnetError as error:
            log.debug("%s was not reached: %s", peer, error)
