"""What every process of a swarm stands on: its folder, its key, its log, its network thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from peers.preemption import watch
from peers.stop import Pause, Stop
from swarmnet.config import PeerConfig, next_address
from swarmnet.errors import ConfigError, StopRequested, StorageError
from swarmnet.events import EventLog
from swarmnet.net.identity import Identity, load_or_create
from swarmnet.net.thread import NetThread

ResultT = TypeVar("ResultT")
LISTEN_S = 0.1
LAST_S = 1.0
"""Of the time for leaving: kept back for records, checkpoint and the daemon's end."""
POLL_S = 0.05


async def until(ready: Callable[[], bool], deadline: float) -> None:
    """Wait for what no event tells; ``deadline`` in monotonic seconds."""
    while not ready():
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(POLL_S)


@dataclass
class Station:
    """One process's own things. ``close`` ends what was started here."""

    out: Path
    name: str
    peer: PeerConfig
    stop: Stop
    identity: Identity
    log: EventLog
    net: NetThread
    pause: Pause = field(default_factory=Pause)
    incarnation: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def open(cls, out: Path, name: str, peer: PeerConfig) -> Station:
        """Raises ConfigError when ``out`` cannot be made, IdentityError on a foreign key file."""
        try:
            out.mkdir(parents=True, exist_ok=True)
            identity = load_or_create(peer.identity or out / "identity.key")
            log = EventLog(out / "events.jsonl", name)
        except OSError as error:
            raise ConfigError(f"{out}: {error.strerror}; choose another --out") from error
        return cls(out, name, peer, Stop(), identity, log, NetThread().start())

    @property
    def seed(self) -> int:
        """63 bits that no other peer has, nor this one at another start."""
        said = f"{self.identity.peer_id} {self.incarnation}".encode()
        return int.from_bytes(hashlib.sha256(said).digest()[:8], "big") >> 1

    def branch(self, part: int) -> Station:
        """Another peer of this process: a key, a port and a folder of its own, the rest shared.

        It needs no ``close``. Raises as ``open``.
        """
        name, peer = f"{self.name}-{part}", self.peer
        out = self.out / f"part-{part}"
        port = peer.port + part if peer.port else 0
        status = next_address(peer.status, part)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{out}: {error.strerror}") from error
        return replace(
            self,
            out=out,
            name=name,
            peer=peer.model_copy(update={"port": port, "status": status}),
            identity=load_or_create(out / "identity.key"),
            log=self.log.named(name),
        )

    def listen(self) -> None:
        """To signals and notices; in the main thread of a process that has one station."""
        self.stop.on_signals()
        self.pause.on_signals()
        if self.peer.notice is not None:
            watch(self.peer.notice.build("notice"), self.peer.notice_s, self.stop)

    def left_s(self) -> float:
        """Of the time for leaving, once told to leave."""
        return self.stop.at + self.peer.leave_s - time.monotonic()

    def run(
        self, work: Coroutine[Any, Any, ResultT], winds_down: Callable[[], bool] = lambda: False
    ) -> ResultT:
        """The result of ``work`` in the network thread, given up as soon as we are told to leave.

        ``winds_down``: whether ``work`` hears of that by itself, and is about to end in good order.

        Raises:
            StopRequested: told to leave; ``work`` was cancelled. Whatever ``work`` raises.
        """
        future = self.net.submit(work)
        while not self.stop or (winds_down() and self.left_s() > LAST_S):
            try:
                return future.result(timeout=LISTEN_S)
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise
        future.cancel()
        raise StopRequested(f"stopped by {self.stop.reason}")

    def close(self) -> None:
        self.net.stop()
        self.log.close()
