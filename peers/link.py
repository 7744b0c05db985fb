"""A process's membership of one run: its node, the phone book, who is alive, how far the run is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from peers.give import TOPIC as GIVE_TOPIC
from peers.progress import Progress
from peers.station import Station
from peers.stop import Pause
from peers.storm.weathered import WeatheredNode
from peers.take import take_run_file
from swarmnet.config import RunFile, differing_keys, fingerprint
from swarmnet.errors import LinkError, PeerFault, RunMismatchError, StorageError, UnreachableError
from swarmnet.events import DaemonRestarted, ReachSeen, RunEntered
from swarmnet.exchange.membership import STATES, Membership, Status
from swarmnet.exchange.transport import Handler
from swarmnet.net.addressbook import FILE as ADDRESSES
from swarmnet.net.daemon import Listen
from swarmnet.net.node import Node, NodeOptions
from swarmnet.net.phonebook import Phonebook, PhonebookOptions
from swarmnet.sharing import Span
from swarmnet.wire.invite import Invite, peer_of

if TYPE_CHECKING:
    from peers.status.server import Page

REFRESH_S = 0.25
SERVING = ("training", "consensus", "serving")
WORKING = ("syncing", "training", "paused", "consensus")
READING = ("training",)
ALIVE = STATES[:-1]
"""All but those who left."""
VOLUNTEERS = ("worker", "stage", "trainer")
MAX_ASKED = 8
"""Of those that a newcomer is connected to, who are asked for the run file."""
REFERENCE = "run.toml"
"""The run file's name inside ``--out``."""


@dataclass
class Link:
    """Made by ``join``; lives in the network's loop; left by ``leave``."""

    node: Node
    run: RunFile
    membership: Membership
    phonebook: Phonebook
    progress: Progress
    pause: Pause
    _refresher: asyncio.Task[None]

    @classmethod
    async def join(
        cls, station: Station, node: Node, run: RunFile, owner: str, status: Callable[[], Status]
    ) -> Link:
        """Enter the phone book and read it once."""
        renew_s = run.config.membership.renew_s
        membership = Membership(node.me, renew_s)
        options = PhonebookOptions(renew_s, owner, wall=time.time)
        phonebook = Phonebook(node, membership, status, options)
        phonebook.on_event = station.log.emit
        node.run_file = run.raw
        node.on_restart = lambda seconds: station.log.emit(DaemonRestarted(seconds))
        node.on_event = station.log.emit
        node.on_healed = phonebook.nudge
        if node.reach != "unknown":
            station.log.emit(ReachSeen(node.reach, list(node.relays)))
        progress = Progress(run.config.target, membership)
        await phonebook.start()
        progress.refresh()
        refresher = asyncio.create_task(_refresh(progress))
        return cls(node, run, membership, phonebook, progress, station.pause, refresher)

    async def give(self, handler: Handler) -> None:
        await self.node.serve(GIVE_TOPIC, handler)

    def rests(self, progress: float) -> bool:
        """Whether this peer stands still: by the owner's order, or by its own wish while the run
        goes on."""
        order = self.phonebook.order
        return order == "pause" or (bool(self.pause) and progress < 1 and order != "end")

    def workers(self, states: tuple[str, ...] = WORKING) -> list[str]:
        """Live workers in one of ``states``."""
        return self.of_role("worker", states=states)

    def volunteers(self) -> list[str]:
        """Whoever trains now, in whatever role: no bootstraps and visitors."""
        return self.of_role(*VOLUNTEERS, states=WORKING)

    def of_role(self, *roles: str, states: tuple[str, ...] = ALIVE) -> list[str]:
        """Live members in one of ``roles`` and ``states``."""
        members = self.membership
        live = members.alive(time.monotonic(), states)
        return [p for p in live if (status := members.status(p)) and status.role in roles]

    def readers(self, role: str) -> dict[str, Span]:
        """Who of ``role`` reads now, and how far each has come; also who is suspected."""
        members, found = self.membership, dict[str, Span]()
        for peer in members.alive(time.monotonic(), READING, suspects=True):
            status = members.status(peer)
            if status is not None and status.role == role:
                found[peer] = Span(status.since, status.read)
        return found

    def stages(self, states: tuple[str, ...] = SERVING) -> dict[int, list[str]]:
        """Live stage peers in one of ``states`` by the stage that they serve."""
        members, found = self.membership, dict[int, list[str]]()
        for peer in members.alive(time.monotonic(), states):
            status = members.status(peer)
            if status is not None and status.role == "stage":
                found.setdefault(status.stage, []).append(peer)
        return found

    async def leave(self) -> None:
        """Tell the others, then take the node down. Bounded by a few seconds."""
        self._refresher.cancel()
        await self.phonebook.leave()
        await self.node.close()


async def _refresh(progress: Progress) -> None:
    while True:
        progress.refresh()
        await asyncio.sleep(REFRESH_S)


def node_options(
    station: Station, fingerprint: str, bootstrap: tuple[str, ...] = (), run_file: bytes = b""
) -> NodeOptions:
    """What the machine's settings and its folder say about its node. Raises AddressError."""
    peer = station.peer
    return NodeOptions(
        identity=station.identity,
        fingerprint=fingerprint,
        run_file=run_file,
        bootstrap=bootstrap,
        listen=Listen(peer.host, peer.port, peer.announce),
        reach=peer.reach,
        relay_mib=peer.relay_mib,
        book=station.out / ADDRESSES,
    )


async def start_node(station: Station, invite: Invite) -> Node:
    """A node that reached the run. Raises UnreachableError, AddressError."""
    options = node_options(station, invite.fingerprint, invite.bootstrap)
    if station.peer.weather is not None:
        return await WeatheredNode.exposed(options, station.peer.weather)
    return await Node.start(options)


async def learn_run(station: Station, node: Node, invite: Invite, given: bytes | None) -> RunFile:
    """The run file that the invite names: from the user, from an earlier start, or from a peer.

    Raises:
        RunMismatchError: the user's own file is another run's; names the keys that differ.
        UnreachableError: nobody gives it.
    """
    kept = station.out / REFERENCE
    if given is None and kept.exists():
        raw = kept.read_bytes()
        if fingerprint(raw) == invite.fingerprint:
            return RunFile(raw, str(kept))
    raw = await _ask_run(node, invite, given)
    try:
        kept.write_bytes(raw)
    except OSError as error:
        raise StorageError(f"{kept}: {error.strerror}") from error
    return RunFile(raw, "the run file of the swarm")


async def _ask_run(node: Node, invite: Invite, given: bytes | None) -> bytes:
    node.run_file = given or b""
    reasons = []
    bootstraps = [peer_of(address) for address in invite.bootstrap]
    for peer in whom_to_ask(node.connected, bootstraps):
        try:
            await node.hello(peer)
            raw = await take_run_file(node, peer)
        except (LinkError, PeerFault) as error:
            reasons.append(f"{peer[-6:]}: {error}")
            continue
        if fingerprint(raw) != invite.fingerprint:
            reasons.append(f"{peer[-6:]}: gave another run file than the invite names")
        elif given is not None and given != raw:
            raise RunMismatchError(_difference(given, raw))
        else:
            return raw
    raise UnreachableError("nobody gave the run file: " + "; ".join(reasons))


def whom_to_ask(connected: Sequence[str], bootstraps: Sequence[str]) -> list[str]:
    """Whom a newcomer asks for the run file, in this order: bootstraps that are there, then others.

    Those that it is connected to may be newcomers themselves, with nothing to give.
    """
    there = sorted(connected, key=lambda peer: peer not in bootstraps)
    return list(dict.fromkeys([*there[:MAX_ASKED], *bootstraps]))


def _difference(mine: bytes, theirs: bytes) -> str:
    keys = differing_keys(mine, theirs)
    return "the swarm trains another run: " + ("; ".join(keys) or "only comments or spaces differ")


@dataclass(frozen=True)
class Newcomer:
    """A process that wants to become a member: its invite, and the user's own run file if any."""

    station: Station
    invite: Invite
    given: bytes | None = None

    def enter(self, status: Callable[[], Status], prepare: Callable[[RunFile], None]) -> Link:
        """Reach the run, learn its file, ``prepare``, and only then be seen by others.

        Raises:
            UnreachableError, RunMismatchError, StopRequested, or whatever ``prepare`` raises.
        """
        station, times, page = self.station, [time.monotonic()], None
        station.stop.at_once = True
        if station.peer.status:
            page = self._page(status)
        node = station.run(start_node(station, self.invite))
        times.append(time.monotonic())
        try:
            run = station.run(learn_run(station, node, self.invite, self.given))
            times.append(time.monotonic())
            prepare(run)
            times.append(time.monotonic())
            link = station.run(Link.join(station, node, run, self.invite.owner, status))
            times.append(time.monotonic())
            station.log.emit(RunEntered(*(after - before for before, after in pairwise(times))))
        except BaseException:
            station.net.run(node.close())
            raise
        if page is not None:
            page.facts.link = link
        station.stop.at_once = False
        return link

    def _page(self, status: Callable[[], Status]) -> Page:
        """It shows from the first moment how far this process has come, and ends with it."""
        from peers.status.server import Page

        return self.station.run(Page(self.station, status).open())
