"""A peer on the network: streams and records that outlive the daemon under them.

All of it runs in one asyncio loop. A supervisor task waits for the daemon's death and brings it
back under the same identity and port; streams under way are lost, topics and records return.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from multiaddr import Multiaddr

from swarmnet.errors import AddressError, DeadlinePassed, LinkError, SwarmnetError, UnreachableError
from swarmnet.exchange.transport import FrameStream, Handler
from swarmnet.net import hello
from swarmnet.net.daemon import Daemon, Listen, bare
from swarmnet.net.directory import Directory
from swarmnet.net.folder import PrivateFolder
from swarmnet.net.identity import Identity
from swarmnet.net.serving import StreamServer
from swarmnet.net.stream import P2pStream
from swarmnet.wire import WIRE_VERSION
from swarmnet.wire.invite import parse_address

_DIAL_S = 10.0
_REDIAL_S = 1.0
_RESTART_S = 30.0
_RETRY_S = 0.5
_CALL_S = 5.0
_ROUTE_S = 5.0
_TEND_S = 5.0
"""Between two looks at our neighbours: ping the daemon, remember addresses, redial if alone."""
_DEATHS = 3
_DEATHS_WITHIN_S = 60.0
_START_TRIES = 2
INCOMING = "in.sock"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeOptions:
    """Who this peer is, which run it belongs to, and how it is reached.

    ``run_file`` is shown to peers of other runs; empty while it is not known yet.
    """

    identity: Identity
    fingerprint: str
    run_file: bytes = b""
    bootstrap: tuple[str, ...] = ()
    listen: Listen = field(default_factory=Listen)


class Node:
    """Implements ``Transport`` over libp2p. Made by ``start``, ended by ``close``.

    ``failed`` ends with UnreachableError when the daemon cannot be kept alive, and with None at
    ``close``; ``on_restart`` is called with the seconds that a restart took.
    """

    def __init__(self, options: NodeOptions, folder: PrivateFolder) -> None:
        self.options = options
        self.run_file = options.run_file
        self.on_restart: Callable[[float], None] = lambda _: None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._folder = folder
        self._directory = Directory(options.identity, options.fingerprint)
        self._server = StreamServer(folder.path / INCOMING)
        self._bootstraps = _by_peer(options.bootstrap, self.me)
        self._neighbours: dict[str, list[Multiaddr]] = {}
        self._published: dict[str, list[Multiaddr]] = {}
        self._daemon: Daemon | None = None
        self._listen = options.listen
        self._up = asyncio.Event()
        self._joined = False
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
        """Full multiaddrs of this peer, announced ones first, loopback last."""
        announced = [str(bare(address)) for address in self.options.listen.announce]
        visible = [str(address) for address in self._daemon.visible] if self._daemon else []
        visible.sort(key=lambda address: ("/127." in address, "/ip6/" in address))
        return [f"{address}/p2p/{self.me}" for address in dict.fromkeys(announced + visible)]

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
            if not self._published.get(peer):
                raise
            await self._connect(peer, self._published[peer], deadline_s)
            return await self._open(peer, name, deadline_s)

    def learn(self, peer: str, addresses: list[str]) -> None:
        """What ``peer`` published of where it listens; what is no address is left out."""
        found = []
        for text in addresses:
            with suppress(AddressError):
                parse_address(text)
                found.append(bare(text))
        self._published[peer] = found

    async def serve(self, topic: str, handler: Handler) -> None:
        """See ``Transport.serve``; holds over restarts of the daemon."""
        await self._serve(self._scoped(topic), handler)

    async def publish(self, key: str, body: dict[str, Any]) -> None:
        """Put our signed entry into the run's record ``key`` (one of ``records.RECORDS``)."""
        await self._directory.publish(key, body)

    async def lookup(self, key: str) -> dict[str, dict[str, Any]]:
        """The latest verified entries of the run's record ``key``, by peer id, ours included."""
        return await self._directory.lookup(key)

    async def hello(self, peer: str, deadline_s: float = 10.0) -> None:
        """Make sure that ``peer`` is in our run. Raises RunMismatchError, LinkError."""
        stream = await self._open(peer, hello.TOPIC, deadline_s)
        try:
            await hello.ask(stream, self.options.fingerprint, self.run_file, deadline_s)
        finally:
            await stream.close()

    async def dial(self, address: str, deadline_s: float = _DIAL_S) -> str:
        """Connect to a full multiaddr and make that peer a neighbour in the DHT; its id."""
        [(peer, addresses)] = _by_peer([address], "").items()
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
        return P2pStream(peer, await self._daemon.control.open(peer, name, deadline_s))

    async def _serve(self, name: str, handler: Handler) -> None:
        routed = name in self._server.handlers
        self._server.handlers[name] = handler
        if self._daemon is not None and not routed:
            await self._daemon.control.route(name, self._server.path, _ROUTE_S)

    async def _connect(self, peer: str, addresses: Iterable[Multiaddr], deadline_s: float) -> None:
        if self._daemon is None:
            raise LinkError("the libp2p daemon is being restarted")
        await self._daemon.control.connect(peer, addresses, deadline_s)

    async def _first_daemon(self, startup_s: float) -> None:
        for attempt in range(_START_TRIES):
            daemon = self._daemon = await self._launch(startup_s)
            try:
                await self._join(daemon, _DIAL_S)
                break
            except (UnreachableError, LinkError) as error:
                await self._drop_daemon()
                if attempt == _START_TRIES - 1:
                    raise UnreachableError(str(error)) from error
        self._listen = replace(self._listen, port=daemon.port)
        await self._serve(hello.TOPIC, self._welcome)
        self._joined = True
        self._up.set()

    async def _welcome(self, stream: FrameStream) -> None:
        await hello.answer(stream, self.options.fingerprint, self.run_file)

    async def _launch(self, startup_s: float) -> Daemon:
        return await Daemon.start(self.options.identity, self._listen, self._folder.path, startup_s)

    async def _join(self, daemon: Daemon, wait_s: float) -> None:
        """Connect to whom we know, go on with the first that answers, greet the rest later."""
        reached, failures = await self._dial_known(wait_s)
        if self._bootstraps and not reached and not self._joined:
            raise UnreachableError(
                f"no bootstrap answers ({'; '.join(failures)}). Check this machine's network, then "
                "whether the run still goes on, and ask for a fresh invite"
            )
        await self._directory.attach(daemon, reached)

    async def _dial_known(self, wait_s: float) -> tuple[list[str], list[str]]:
        """(who answered first, why others did not); those still on their way are greeted later."""
        known = self._neighbours | self._bootstraps
        dials = {
            self._spawn(self._connect(peer, addresses, _DIAL_S)): peer
            for peer, addresses in known.items()
        }
        deadline = time.monotonic() + wait_s
        pending, reached, failures = set(dials), list[str](), list[str]()
        while pending and not reached and time.monotonic() < deadline:
            done, pending = await asyncio.wait(
                pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
            )
            for dial in done:
                error = dial.exception()
                if error is None:
                    reached.append(dials[dial])
                else:
                    failures.append(f"{known[dials[dial]][0]}: {error}")
        for dial in pending:
            self._spawn(self._greet_after(dial, dials[dial]))
        return reached, failures

    async def _greet_after(self, dial: asyncio.Task[None], peer: str) -> None:
        try:
            await dial
            await self._up.wait()
            await self._directory.greet(peer)
        except SwarmnetError as error:
            log.debug("%s was not reached: %s", peer, error)

    async def _drop_daemon(self) -> None:
        self._up.clear()
        daemon, self._daemon = self._daemon, None
        self._directory.detach()
        if daemon is not None:
            await daemon.close()

    async def _supervise(self) -> None:
        deaths: deque[float] = deque(maxlen=_DEATHS)
        while True:
            if self._daemon is not None:
                await self._daemon.wait_dead()
            began = time.monotonic()
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
        """Keep a way back: peers' addresses for the next start, bootstraps when we are alone."""
        silent = 0
        while True:
            await asyncio.sleep(_TEND_S)
            daemon = self._daemon
            if daemon is None or not self._up.is_set():
                continue
            try:
                self._neighbours = await daemon.control.peers(_CALL_S) or self._neighbours
                silent = 0
            except LinkError:
                silent += 1
                if silent == _DEATHS:
                    daemon.kill()
                continue
            if self._directory.alone:
                reached, _ = await self._dial_known(_DIAL_S)
                for peer in reached:
                    await self._directory.greet(peer)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a task of the node ended: %r", error)


def _by_peer(addresses: Iterable[str], me: str) -> dict[str, list[Multiaddr]]:
    """Addresses without ``/p2p``, grouped by peer, our own left out. Raises AddressError."""
    known: dict[str, list[Multiaddr]] = {}
    for text in addresses:
        peer = str(parse_address(text).value_for_protocol("p2p"))
        if peer != me:
            known.setdefault(peer, []).append(bare(text))
    return known
