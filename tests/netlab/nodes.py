"""Nodes on the hosts of a lab: each has a network thread of its own that lives on its host."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from swarmnet.errors import LinkError
from swarmnet.events import Event
from swarmnet.net.daemon import Listen
from swarmnet.net.identity import load_or_create
from swarmnet.net.node import Node, NodeOptions
from swarmnet.net.thread import NetThread
from swarmnet.wire import Frame, Kind
from swarmnet.wire.frame import PART_BYTES
from tests.netlab.lab import Lab, enter

FINGERPRINT = "ab" * 16
STREAM_S = 10.0


class Host:
    """One node on one host, started and ended from outside. ``events`` are those of its node."""

    def __init__(self, lab: Lab, name: str, folder: Path) -> None:
        self.name = name
        self.events: list[Event] = []
        self.healed = 0
        self._folder = folder
        self.thread = NetThread().start()
        self.thread.run(_move(lab.namespace(name)))
        self.node: Node

    @property
    def me(self) -> str:
        return self.node.me

    def start(self, bootstrap: Sequence[str] = (), **changes: Any) -> Self:
        fields = {
            "identity": load_or_create(self._folder / self.name),
            "fingerprint": FINGERPRINT,
            "bootstrap": tuple(bootstrap),
            "listen": Listen("0.0.0.0"),
            "book": self._folder / f"{self.name}.json",
        }
        self.node = self.thread.run(Node.start(NodeOptions(**(fields | changes))))
        self.node.on_event = self.events.append
        self.node.on_healed = self._count
        self.thread.run(self.node.serve("echo", _echo))
        return self

    def close(self) -> None:
        if hasattr(self, "node"):
            self.thread.run(self.node.close())
        self.thread.stop()

    def publish(self, n: int) -> None:
        self.thread.run(self.node.publish("peers", {"n": n}))

    def sees(self) -> dict[str, int]:
        return {peer: body["n"] for peer, body in self.thread.run(self._look()).items()}

    def introduce(self, *others: Host) -> None:
        """As the phone book does it: everybody's addresses, from their records."""
        for other in others:
            if other is not self:
                relays = other.node.relaying
                self.node.learn(other.me, other.node.addresses, relays=relays)

    def echo(self, other: Host, nbytes: int = 10, deadline_s: float = STREAM_S) -> int:
        """Bytes that came back from ``other`` on one new stream."""
        return self.thread.run(_talk(self.node, other.me, nbytes, deadline_s))

    async def _look(self) -> dict[str, dict[str, Any]]:
        try:
            return await self.node.lookup("peers")
        except LinkError:
            return {}

    def _count(self) -> None:
        self.healed += 1


async def _move(namespace: str) -> None:
    enter(namespace)


async def _echo(stream: Any) -> None:
    while True:
        await stream.send(await stream.receive(STREAM_S), STREAM_S)


async def _talk(node: Node, peer: str, nbytes: int, deadline_s: float) -> int:
    stream = await node.open(peer, "echo", deadline_s)
    came = 0
    try:
        while came < nbytes:
            part = bytes(min(PART_BYTES, nbytes - came))
            await stream.send(Frame(Kind.PART, part), deadline_s)
            came += len((await stream.receive(deadline_s)).body)
    finally:
        await stream.close()
    return came


def wait_until(condition: Callable[[], Any], within_s: float) -> float:
    """Seconds until ``condition`` held; fails after ``within_s``."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, "it does not come true"
        time.sleep(0.1)
    return time.monotonic() - began
