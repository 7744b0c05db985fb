"""The libp2p daemon ``p2pd``: a child process that holds the key, the connections and the relays.

It listens on TCP only, keeps its sockets in a private folder, and dies with us even when we are
killed, so that no orphan answers in our name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiaddr import Multiaddr

from swarmnet.errors import AddressError, UnreachableError
from swarmnet.net.control import Control
from swarmnet.net.engine import P2P, P2PDaemonError
from swarmnet.net.identity import Identity
from swarmnet.wire.invite import parse_address

_ATTEMPTS = 3
_CALL_S = 5.0
_TERMINATE_S = 0.5

_LAUNCH = """
import os, sys
os.environ["GOLOG_LOG_LEVEL"] = "fatal"
os.environ.setdefault("GOMAXPROCS", "1")
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs first in the child: PR_SET_PDEATHSIG = 1, SIGKILL = 9, then it becomes the daemon.

One Go processor moves gigabits a second; with more of them, idle threads that wake each other
take time from training.
"""


@dataclass(frozen=True)
class Listen:
    """Where a peer listens (port 0: any free one) and what it tells others to dial.

    Raises AddressError when the host is no IP address or an announced address no multiaddr.
    """

    host: str = "0.0.0.0"
    port: int = 0
    announce: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for address in self.announce:
            parse_address(address, needs_peer=False)
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise AddressError(f"cannot listen on {self.host!r}: not an IP address") from error

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    def multiaddr(self) -> str:
        version = ipaddress.ip_address(self.host).version
        return f"/ip{version}/{self.host}/tcp/{self.port}"


class Daemon:
    """One running p2pd. A dead one is never revived: start another."""

    def __init__(self, p2p: Any, control: Control, visible: list[Multiaddr]) -> None:
        self.p2p = p2p
        self.control = control
        self.visible = visible
        self._mourner = asyncio.get_running_loop().create_task(self._fail_calls_at_death())

    @classmethod
    async def start(
        cls, identity: Identity, listen: Listen, folder: Path, startup_s: float
    ) -> Daemon:
        """A daemon that answers; each try is a new object because a failed one stays broken.

        Raises:
            AddressError: the port is in use. UnreachableError: the daemon does not come up.
        """
        check_port(listen)
        deadline = asyncio.get_running_loop().time() + startup_s
        for attempt in range(_ATTEMPTS):
            left = deadline - asyncio.get_running_loop().time()
            try:
                return await cls._launch(identity, listen, folder, max(left, 1.0))
            except (P2PDaemonError, OSError, EOFError) as error:
                check_port(listen)
                if attempt == _ATTEMPTS - 1 or left <= 0:
                    raise UnreachableError(f"the libp2p daemon does not start: {error}") from error
                await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError

    @classmethod
    async def _launch(
        cls, identity: Identity, listen: Listen, folder: Path, startup_s: float
    ) -> Daemon:
        p2p = await _private_p2p(folder).create(
            identity_path=str(identity.path),
            check_if_identity_free=False,
            host_maddrs=[listen.multiaddr()],
            announce_maddrs=[str(bare(a)) for a in listen.announce] or None,
            auto_nat=not listen.loopback,
            nat_port_map=not listen.loopback,
            startup_timeout=startup_s,
        )
        control = Control(Path(p2p.daemon_listen_maddr["unix"]))
        return cls(p2p, control, await control.identify(_CALL_S))

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


def check_port(listen: Listen) -> None:
    """Raises AddressError when ``listen`` cannot be bound, before a daemon is started for it."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            raise AddressError(
                f"cannot listen on {listen.host} port {listen.port}: {error.strerror}; "
                "choose another port, or 0 for any free one"
            ) from error


def _private_p2p(folder: Path) -> Any:
    class PrivateP2P(P2P):  # type: ignore[misc]
        """hivemind's wrapper with its sockets in ``folder`` and a child that dies with us."""

        _UNIX_SOCKET_PREFIX = f"/unix{folder}/"

        @staticmethod
        def _make_process_args(*args: Any, **options: Any) -> list[str]:
            launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
            return [*launch, *P2P._make_process_args(*args, **options)]

    return PrivateP2P


async def _refuse(*_: Any, **__: Any) -> bytes:
    raise P2PDaemonError("the daemon is gone")
