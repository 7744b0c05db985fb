"""A peer on the network: streams and records that outlive the daemon under them.

All of it runs in one asyncio loop. A supervisor task waits for the daemon's death and brings it
back under the same identity and port; streams under way are lost, topics and records return.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

from multiaddr import Multiaddr

from swarmnet.errors import (
    AddressError,
    DeadlinePassed,
    LinkError,
    SwarmnetError,
    UnreachableError,
)
from swarmnet.events import ClockOff, Event, ReachSeen
from swarmnet.exchange.transport import FrameStream, Handler
from swarmnet.net import dialback, hello
from swarmnet.net.addressbook import Book, load, save
from swarmnet.net.contacts import Contacts, by_peer
from swarmnet.net.control import Control
from swarmnet.net.daemon import Daemon, Listen, Reach, Standing, settled
from swarmnet.net.dialback import Dialback
from swarmnet.net.directory import Directory
from swarmnet.net.folder import PrivateFolder
from swarmnet.net.identity import Identity
from swarmnet.net.neighbours import DIAL_S, PATIENCE_S, Neighbours
from swarmnet.net.reach import Reachability
from swarmnet.net.serving import StreamServer
from swarmnet.net.stream import P2pStream
from swarmnet.wire import WIRE_VERSION

_REDIAL_S = 1.0
_RESTART_S = 30.0
_RETRY_S = 0.5
_CALL_S = 5.0
_ROUTE_S = 5.0
_TEND_S = 5.0
"""Between two looks at our neighbours: ping the daemon, remember addresses, dial who is lost."""
_FIRST_LOOK_S = 0.5
_SAVE_S = 300.0
_DEATHS = 3
_DEATHS_WITHIN_S = 60.0
_START_TRIES = 2
_FAILURES_NAMED = 3
INCOMING = "in.sock"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeOptions:
    """Who this peer is, which run it belongs to, and how it is reached.

    ``run_file`` is shown to peers of other runs; empty while it is not known yet. ``reach`` and
    ``relay_mib`` as in the peer's file.
    """

    identity: Identity
    fingerprint: str
    run_file: bytes = b""
    bootstrap: tuple[str, ...] = ()
    listen: Listen = field(default_factory=Listen)
    reach: Literal["auto", "public", "private"] = "auto"
    relay_mib: int = 4096
    book: Path | None = None
    """Where the addresses of peers met are kept; None keeps none."""


class Node:
    """Implements ``Transport`` over libp2p. Made by ``start``, ended by ``close``.

    ``failed`` ends with UnreachableError when the daemon cannot be kept alive, and with None at
    ``close``; ``on_restart`` is called with the seconds that a restart took, ``on_healed`` when
    peers that were lost are back.
    """

    def __init__(self, options: NodeOptions, folder: PrivateFolder) -> None:
        self.options = options
        self.run_file = options.run_file
        self.on_restart: Callable[[float], None] = lambda _: None
        self.on_event: Callable[[Event], None] = lambda _: None
        self.on_healed: Callable[[], None] = lambda: None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._folder = folder
        self._directory = Directory(options.identity, options.fingerprint)
        self._streams = WeakSet[P2pStream]()
        self._opening = Counter[str]()
        self._server = StreamServer(folder.path / INCOMING)
        self._server.on_stream = self._streams.add
        book = load(options.book, options.fingerprint) if options.book else Book()
        self._contacts = Contacts(self.me, options.bootstrap, book.peers)
        self._neighbours = Neighbours(self._contacts, self._directory, self._spawn)
        self._neighbours.may_drop = self._may_drop
        self._neighbours.on_healed = lambda: self.on_healed()
        if not options.listen.loopback:
            self._neighbours.on_event = lambda event: self.on_event(event)
        self._daemon: Daemon | None = None
        self._listen = _same_port(options.listen, book.port)
        given = Standing("unknown" if options.reach == "auto" else options.reach)
        self._reach = Reachability(
            self._contacts,
            options.listen,
            replace(given, relay_mib=options.relay_mib),
            self._scoped(dialback.TOPIC),
        )
        self._reach.remember(book.reach)
        self._up = asyncio.Event()
        self._joined = False
        self._clock_told = False
        self._saved_at = float("-inf")
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def start(cls, options: NodeOptions, *, startup_s: float = 60.0) -> Node:
        """A node that has joined the run's DHT; without bootstrap addresses it begins one.

        Raises:
            UnreachableError: no bootstrap answers. AddressError: bad address, or port in use.
        """
        node = cls(options, PrivateFolder())
        try:
            await node._server.start()
            await node._first_daemon(startup_s)
        except BaseException:
            await node.close()
            raise
        node._spawn(node._supervise())
        node._spawn(node._tend())
        return node

    @property
    def me(self) -> str:
        return self.options.identity.peer_id

    @property
    def addresses(self) -> list[str]:
        """Full multiaddrs of this peer: announced ones, those through relays, the others."""
        visible = self._daemon.visible if self._daemon else []
        return [f"{address}/p2p/{self.me}" for address in self._reach.addresses(visible)]

    @property
    def reach(self) -> Reach:
        """Whether others can open connections to us."""
        return self._reach.standing.reach

    @property
    def relays(self) -> tuple[str, ...]:
        """Through whom a private peer is reached: full addresses."""
        return self._reach.standing.relays

    @property
    def relaying(self) -> bool:
        """Whether others can book a slot here."""
        return self.reach == "public" and self.options.relay_mib > 0

    @property
    def connected(self) -> list[str]:
        """The peers to whom there was a connection at the last look."""
        return list(self._neighbours.connected)

    @property
    def ways(self) -> dict[str, str]:
        """How each of these is connected to us: ``direct`` or ``relayed``."""
        return self._neighbours.ways

    @property
    def daemon_pid(self) -> int:
        """The child's process id, for measurements; 0 while there is none."""
        return self._daemon.pid if self._daemon else 0

    async def open(self, peer: str, topic: str, deadline_s: float) -> FrameStream:
        """See ``Transport.open``; while the daemon is being restarted it waits for that.

        The daemon's own routing finds few peers outside of a public network: where it does not,
        the addresses that the peer published are dialled.
        """
        name = self._scoped(topic)
        try:
            return await self._open(peer, name, deadline_s)
        except DeadlinePassed:
            raise
        except LinkError:
            if not self._contacts.published(peer):
                raise
            await self._connect(peer, self._contacts.published(peer), deadline_s)
            return await self._open(peer, name, deadline_s)

    def learn(self, peer: str, addresses: list[str], *, relays: bool = False) -> None:
        """What ``peer`` published: where it listens, and whether it relays for others."""
        self._contacts.learn(peer, addresses, relays)

    def forget(self, peer: str) -> None:
        """It said that it left: nobody dials it any more."""
        self._contacts.forget(peer)

    async def serve(self, topic: str, handler: Handler) -> None:
        """See ``Transport.serve``; holds over restarts of the daemon."""
        await self._serve(self._scoped(topic), handler)

    async def publish(self, key: str, body: dict[str, Any]) -> None:
        """Put our signed entry into the run's record ``key`` (one of ``records.RECORDS``)."""
        await self._directory.publish(key, body)

    async def lookup(self, key: str) -> dict[str, dict[str, Any]]:
        """The latest verified entries of the run's record ``key``, by peer id, ours included."""
        found = await self._directory.lookup(key)
        offset = self._directory.skew.offset()
        if offset is not None and not self._clock_told:
            self._clock_told = True
            self.on_event(ClockOff(offset.ahead_s, offset.peers))
        return found

    async def hello(self, peer: str, deadline_s: float = 10.0) -> None:
        """Make sure that ``peer`` is in our run. Raises RunMismatchError, LinkError."""
        stream = await self._open(peer, hello.TOPIC, deadline_s)
        try:
            await hello.ask(stream, self.options.fingerprint, self.run_file, deadline_s)
        finally:
            await stream.close()

    async def dial(self, address: str, deadline_s: float = DIAL_S) -> str:
        """Connect to a full multiaddr and make that peer a neighbour in the DHT; its id."""
        [(peer, addresses)] = by_peer([address], "").items()
        await self._connect(peer, addresses, deadline_s)
        await self._directory.greet(peer)
        return peer

    async def wait_failed(self) -> None:
        """Return when the node is closed. Raises UnreachableError when its daemon is lost."""
        try:
            await asyncio.shield(self.failed)
        except asyncio.CancelledError:
            if not self.failed.cancelled():
                raise

    async def close(self) -> None:
        """End everything that belongs to this node, within two seconds. May be called twice."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._joined and self.options.book is not None:
            save(self.options.book, self._book())
        await self._server.close()
        await self._drop_daemon()
        self._folder.remove()
        if not self.failed.done():
            self.failed.set_result(None)
        self.failed.exception()

    def _scoped(self, topic: str) -> str:
        return f"swarmnet/{WIRE_VERSION}/{self.options.fingerprint}/{topic}"

    async def _open(self, peer: str, name: str, deadline_s: float) -> P2pStream:
        if not self._up.is_set():
            try:
                async with asyncio.timeout(deadline_s):
                    await self._up.wait()
            except TimeoutError:
                raise DeadlinePassed(f"{peer} was not reached in {deadline_s:.1f} s") from None
        assert self._daemon is not None
        self._opening[peer] += 1
        try:
            stream = P2pStream(peer, await self._daemon.control.open(peer, name, deadline_s))
        finally:
            self._opening[peer] -= 1
        self._streams.add(stream)
        return stream

    async def _serve(self, name: str, handler: Handler) -> None:
        routed = name in self._server.handlers
        self._server.handlers[name] = handler
        if self._daemon is not None and not routed:
            await self._daemon.control.route(name, self._server.path, _ROUTE_S)

    async def _connect(self, peer: str, addresses: Iterable[Multiaddr], deadline_s: float) -> None:
        await self._control().connect(peer, addresses, deadline_s)

    def _control(self) -> Control:
        if self._daemon is None:
            raise LinkError("the libp2p daemon is being restarted")
        return self._daemon.control

    async def _first_daemon(self, startup_s: float) -> None:
        for attempt in range(_START_TRIES):
            daemon = self._daemon = await self._launch(startup_s)
            try:
                await self._join(daemon, PATIENCE_S)
                break
            except (UnreachableError, LinkError) as error:
                await self._drop_daemon()
                if attempt == _START_TRIES - 1:
                    raise UnreachableError(str(error)) from error
        self._listen = replace(self._listen, port=daemon.port)
        self._joined = True
        await self._settle_reach(daemon)
        await self._serve(hello.TOPIC, self._welcome)
        if not self._listen.loopback:
            await self._serve(self._scoped(dialback.TOPIC), Dialback(self._seen_from).answer)
        self._up.set()

    async def _welcome(self, stream: FrameStream) -> None:
        await hello.answer(stream, self.options.fingerprint, self.run_file)

    async def _launch(self, startup_s: float) -> Daemon:
        return await Daemon.start(
            self.options.identity, self._listen, self._reach.standing, self._folder.path, startup_s
        )

    async def _join(self, daemon: Daemon, patience_s: float) -> None:
        """Connect to whom we know, go on with the first that answers, greet the rest later."""
        invited = bool(self._contacts.bootstraps)
        reached = await self._neighbours.begin(daemon.control, patience_s if invited else _REDIAL_S)
        if invited and not reached.peers and not self._joined:
            named = "; ".join(reached.failures[:_FAILURES_NAMED])
            met = set(self._contacts.ways_in()) - set(self._contacts.bootstraps)
            others = ", nor anybody of the address book" if met else ""
            raise UnreachableError(
                f"no bootstrap answers{others} ({named}). Check this machine's network, then "
                "whether the run still goes on, and ask for a fresh invite"
            )
        await self._directory.attach(daemon, reached.peers)
        with suppress(LinkError):
            self._neighbours.connected = await daemon.control.peers(_CALL_S)

    async def _settle_reach(self, daemon: Daemon) -> None:
        """Ask whom we reached; who is private starts again, with relays that are there."""
        await self._reach.ask(daemon.control, self.connected, self._listen.port)
        if self._reach.choose_relays(self._neighbours.connected):
            await self._drop_daemon()
            daemon = self._daemon = await self._launch(_RESTART_S)
            await self._join(daemon, _REDIAL_S)

    async def _seen_from(self, peer: str) -> list[Multiaddr]:
        return (await self._control().peers(_CALL_S)).get(peer, [])

    def _may_drop(self, peer: str) -> bool:
        """Who is public itself could not reach the other: that is for the other one to do.

        Calls of the DHT go past us; one that is cut is made again.
        """
        talking = {stream.peer for stream in self._streams if not stream.closed}
        busy = peer in talking or self._opening[peer] > 0
        return self.reach != "public" and not busy

    # ---- the daemon's life --------------------------------------------------------------------

    async def _drop_daemon(self) -> None:
        self._up.clear()
        daemon, self._daemon = self._daemon, None
        self._directory.detach()
        if daemon is not None:
            await daemon.close()

    async def _supervise(self) -> None:
        """Bring the daemon back; a system that has no file descriptor left is waited for."""
        deaths: deque[float] = deque(maxlen=_DEATHS)
        scarce = False
        while True:
            if self._daemon is not None:
                await self._daemon.wait_dead()
            began = time.monotonic()
            if not scarce:
                deaths.append(began)
            if len(deaths) == _DEATHS and began - deaths[0] < _DEATHS_WITHIN_S:
                self._fail(f"the libp2p daemon died {_DEATHS} times within a minute")
                return
            try:
                await self._restart()
            except SwarmnetError as error:
                log.debug("the libp2p daemon could not be restarted: %s", error)
                await self._drop_daemon()
                await asyncio.sleep(_RETRY_S)
                continue
            except OSError as error:
                if not scarce:
                    log.warning("the libp2p daemon cannot be restarted for now: %s", error)
                scarce = True
                await self._drop_daemon()
                await asyncio.sleep(_RETRY_S)
                continue
            scarce = False
            log.info("the libp2p daemon died and is back")
            self.on_restart(time.monotonic() - began)

    async def _restart(self) -> None:
        await self._drop_daemon()
        daemon = self._daemon = await self._launch(_RESTART_S)
        for name in self._server.handlers:
            await daemon.control.route(name, self._server.path, _ROUTE_S)
        await self._join(daemon, _REDIAL_S)
        self._up.set()
        for key, body in list(self._directory.published.items()):
            self._spawn(self._directory.publish(key, body))

    def _fail(self, reason: str) -> None:
        self._up.clear()
        if not self.failed.done():
            self.failed.set_exception(UnreachableError(reason))

    async def _tend(self) -> None:
        """Keep a way back: see ``Neighbours``, and the addresses for the next start."""
        silent, pause_s = 0, _FIRST_LOOK_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _TEND_S) if self.connected else _FIRST_LOOK_S
            daemon = self._daemon
            if daemon is None or not self._up.is_set():
                continue
            try:
                news = await self._neighbours.look(daemon.control)
                daemon.visible = await daemon.control.identify(_CALL_S)
                silent = 0
            except LinkError as error:
                log.debug("the daemon did not say whom it is connected to: %s", error)
                silent += 1
                if silent == _DEATHS:
                    daemon.kill()
                continue
            if await self._reach.ask_again(daemon.control, self.connected, self._listen.port):
                self.on_event(ReachSeen(self.reach, []))
            if self._reach.choose_relays(self._neighbours.connected):
                self.on_event(ReachSeen(self.reach, list(self.relays)))
                daemon.kill()
            if self.options.book is not None:
                await self._keep_book(self.options.book, news)

    async def _keep_book(self, path: Path, news: bool) -> None:
        if news or time.monotonic() - self._saved_at > _SAVE_S:
            self._saved_at = time.monotonic()
            await asyncio.to_thread(save, path, self._book())

    def _book(self) -> Book:
        return Book(
            run=self.options.fingerprint,
            reach=self.reach,
            port=self._listen.port,
            peers=self._contacts.entries(),
        )

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a task of the node ended: %r", error)


def _same_port(listen: Listen, port: int) -> Listen:
    """Where we listened before, if we may choose and nobody else is there: others know it."""
    if listen.port or not port:
        return listen
    try:
        return settled(replace(listen, port=port))
    except AddressError:
        return listen
