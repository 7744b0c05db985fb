"""The libp2p daemon ``p2pd``: a child process that holds the key, the connections and the relays.

It listens on TCP only, keeps its sockets in a private folder, and dies with us even when we are
killed, so that no orphan answers in our name.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from multiaddr import Multiaddr

from swarmnet.errors import AddressError, UnreachableError
from swarmnet.net.control import Control
from swarmnet.net.engine import P2P, P2PDaemonError
from swarmnet.net.identity import Identity
from swarmnet.wire.invite import parse_address

_ATTEMPTS = 3
_PORT_TRIES = 8
_CALL_S = 5.0
_TERMINATE_S = 0.5
ANY = "*"
RELAY_MINUTES = 30
"""A circuit through a relay ends then; the next stream opens a new one."""
RELAY_CIRCUITS = 16
"""At once for one peer at one relay."""
Reach = Literal["unknown", "public", "private"]

_LAUNCH = """
import os, sys
os.environ["GOLOG_LOG_LEVEL"] = "fatal"
os.environ.setdefault("GOMAXPROCS", "1")
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
os.setpgid(0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs first in the child: PR_SET_PDEATHSIG = 1, SIGKILL = 9, then it becomes the daemon.

It has a process group of its own: Ctrl-C in a terminal must not end it before we have left.

One Go processor moves gigabits a second; with more of them, idle threads that wake each other
take time from training.
"""


@dataclass(frozen=True)
class Listen:
    """Where a peer listens (port 0: any free one) and what it tells others to dial.

    Raises AddressError when the host is no IP address or an announced address no multiaddr.
    """

    host: str = ANY
    port: int = 0
    announce: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for address in self.announce:
            parse_address(address, needs_peer=False)
        for host in self.hosts:
            try:
                if "%" in host:
                    raise ValueError("an address with a zone")
                ipaddress.ip_address(host)
            except ValueError as error:
                raise AddressError(
                    f"cannot listen on {self.host!r}: not an IP address, nor {ANY!r} for all"
                ) from error

    @property
    def hosts(self) -> tuple[str, ...]:
        """Plain IP addresses: ``ANY`` is both families where the machine has both."""
        if self.host == ANY:
            return ("0.0.0.0", "::") if _has_ipv6() else ("0.0.0.0",)
        bracketed = self.host.startswith("[") and self.host.endswith("]")
        return (self.host[1:-1] if bracketed else self.host,)

    @property
    def loopback(self) -> bool:
        return all(ipaddress.ip_address(host).is_loopback for host in self.hosts)

    def multiaddrs(self) -> list[str]:
        return [
            f"/ip{ipaddress.ip_address(host).version}/{host}/tcp/{self.port}" for host in self.hosts
        ]


@dataclass(frozen=True)
class Standing:
    """How a peer stands in the net: whether others can open connections to it, and who relays.

    A public peer relays for others, ``relay_mib`` MiB for each circuit and direction at most (0:
    for nobody). A private one books slots at ``relays``, full addresses, one for each relay.
    """

    reach: Reach = "unknown"
    relays: tuple[str, ...] = ()
    relay_mib: int = 4096

    def options(self) -> dict[str, Any]:
        """What hivemind's wrapper is told."""
        if self.reach == "unknown":
            return {}
        private = self.reach == "private" and bool(self.relays)
        return {
            "force_reachability": self.reach,
            "use_auto_relay": private,
            "trusted_relays": list(self.relays) if private else None,
        }

    def flags(self) -> list[str]:
        """What p2pd is told besides. Without discovery a slot takes a second, not minutes."""
        service = self.reach != "private" and self.relay_mib > 0
        return [
            "-relayDiscovery=0",
            f"-relayService={int(service)}",
            f"-relayDataLimit={max(self.relay_mib, 1) * 1024 * 1024}",
            f"-relayTimeLimit={RELAY_MINUTES}m",
            f"-relayMaxCircuits={RELAY_CIRCUITS}",
        ]


class Daemon:
    """One running p2pd. A dead one is never revived: start another."""

    def __init__(self, p2p: Any, control: Control, visible: list[Multiaddr]) -> None:
        self.p2p = p2p
        self.control = control
        self.visible = visible
        self._mourner = asyncio.get_running_loop().create_task(self._fail_calls_at_death())

    @classmethod
    async def start(
        cls,
        identity: Identity,
        listen: Listen,
        standing: Standing,
        folder: Path,
        startup_s: float,
    ) -> Daemon:
        """A daemon that answers; each try is a new object because a failed one stays broken.

        Raises:
            AddressError: the port is in use. UnreachableError: the daemon does not come up.
        """
        listen = settled(listen)
        deadline = asyncio.get_running_loop().time() + startup_s
        for attempt in range(_ATTEMPTS):
            left = deadline - asyncio.get_running_loop().time()
            try:
                p2p = await _launch(identity, listen, standing, folder, max(left, 1.0))
                control = Control(Path(p2p.daemon_listen_maddr["unix"]))
                return cls(p2p, control, await control.identify(_CALL_S))
            except (P2PDaemonError, OSError, EOFError) as error:
                settled(listen)
                if attempt == _ATTEMPTS - 1 or left <= 0:
                    raise UnreachableError(f"the libp2p daemon does not start: {error}") from error
                await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError

    @property
    def port(self) -> int:
        """The TCP port that it listens on; 0 when only announced addresses are visible."""
        for address in self.visible:
            if "tcp" in [protocol.name for protocol in address.protocols()]:
                return int(address.value_for_protocol("tcp"))
        return 0

    @property
    def pid(self) -> int:
        return int(self.p2p._child.pid)

    async def wait_dead(self) -> None:
        """Return once the process is gone, whoever ended it."""
        await self.p2p._child.wait()

    def kill(self) -> None:
        """End a daemon that no longer answers."""
        if self.p2p._child.returncode is None:
            self.p2p._child.kill()

    async def close(self) -> None:
        """End the process and every call that waits for it. Never raises."""
        calls = self.p2p._client.control
        self.p2p._terminate()
        try:
            async with asyncio.timeout(_TERMINATE_S):
                await self.wait_dead()
        except TimeoutError:
            self.kill()
            await self.wait_dead()
        await self._mourner
        tasks = [self.p2p._reader_task, calls._read_task, calls._write_task]
        tasks += calls._handler_tasks.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fail_calls_at_death(self) -> None:
        """hivemind would wait for ever for answers of a dead daemon, in the DHT and at its start:

        1. a call is written to the daemon's socket; 2. the daemon dies; 3. nobody reads on.
        """
        await self.wait_dead()
        calls = self.p2p._client.control
        calls.call_unary_handler = calls.add_unary_handler = _refuse
        for pending in list(calls._pending_calls.values()):
            if not pending.done():
                pending.set_exception(P2PDaemonError("the daemon is gone"))


def bare(address: str | Multiaddr) -> Multiaddr:
    """``address`` without its ``/p2p/ID`` end."""
    text = str(address)
    return Multiaddr(text.rsplit("/p2p/", 1)[0] if "/p2p/" in text else text)


def settled(listen: Listen) -> Listen:
    """``listen`` with a port that is free on all its hosts; none is chosen for a single host.

    Raises AddressError when it cannot be bound, before a daemon is started for it.
    """
    if listen.port or len(listen.hosts) == 1:
        for host in listen.hosts:
            _bind(host, listen.port)
        return listen
    for _ in range(_PORT_TRIES):
        port = _bind(listen.hosts[0], 0)
        with suppress(AddressError):
            return settled(replace(listen, port=port))
    raise AddressError(f"no port is free on all of {', '.join(listen.hosts)}")


def _bind(host: str, port: int) -> int:
    """The port that was bound, and is free again.

    Raises AddressError, or OSError when there is no file descriptor to try it with.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise AddressError(
            f"cannot listen on {host} port {port}: {error.strerror}; "
            "choose another port, or 0 for any free one"
        ) from error


@lru_cache(maxsize=1)
def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


async def _launch(
    identity: Identity, listen: Listen, standing: Standing, folder: Path, startup_s: float
) -> Any:
    options = {} if listen.loopback else standing.options()
    return await _private_p2p(folder, standing.flags()).create(
        identity_path=str(identity.path),
        check_if_identity_free=False,
        host_maddrs=listen.multiaddrs(),
        announce_maddrs=[str(bare(a)) for a in listen.announce] or None,
        auto_nat=not listen.loopback,
        nat_port_map=not listen.loopback,
        startup_timeout=startup_s,
        **options,
    )


def _private_p2p(folder: Path, flags: list[str]) -> Any:
    class PrivateP2P(P2P):  # type: ignore[misc]
        """hivemind's wrapper with its sockets in ``folder`` and a child that dies with us."""

        _UNIX_SOCKET_PREFIX = f"/unix{folder}/"

        @staticmethod
        def _make_process_args(*args: Any, **options: Any) -> list[str]:
            launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
            return [*launch, *P2P._make_process_args(*args, **options), *flags]

    return PrivateP2P


async def _refuse(*_: Any, **__: Any) -> bytes:
    raise P2PDaemonError("the daemon is gone")
