"""One process of ``averaging.py``: a real peer that meets whom the coordinator says, how it says.

Threads are those of a training peer: this one comes by at step boundaries, the network's runs the
loop, and codec and averaging work in a third. All ways share one node, hence one ``p2pd``.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from asyncio import StreamReader, StreamWriter, to_thread
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from procfs import cpu_seconds, resident_bytes
from torch import nn

from swarmnet.cadence import every_h
from swarmnet.config import RunConfig
from swarmnet.errors import SwarmnetError
from swarmnet.events import ExchangeDone
from swarmnet.exchange.desk import Desk, Settlement
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.links import Links
from swarmnet.exchange.membership import Membership, Status
from swarmnet.exchange.pair import End
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.transport import FrameStream, Handler
from swarmnet.exchange.window import Window
from swarmnet.matching import random_pairs
from swarmnet.net.daemon import Listen
from swarmnet.net.engine import PeerID
from swarmnet.net.identity import load_or_create
from swarmnet.net.node import Node, NodeOptions
from swarmnet.net.thread import NetThread
from swarmnet.train.replica import Replica

FINGERPRINT = "be" * 16
MEETING_S = 60.0
READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Spec:
    """What a process is told when it starts."""

    index: int
    folder: Path
    parameters: int
    codecs: tuple[str, ...]
    bootstrap: tuple[str, ...]


@dataclass(frozen=True)
class Meet:
    """From the coordinator: meet ``partner`` now, in this way."""

    way: str
    partner: str


@dataclass(frozen=True)
class Met:
    """To the coordinator: whether this side applied the meeting, and what it sent."""

    ok: bool
    bytes_sent: int


class Way(Protocol):
    """One way to move the same vectors between the same pairs."""

    def meet(self, partner: str) -> Met: ...


class BareStreams:
    """The floor: both vectors at once over one raw stream of hivemind's ``P2P``, then one byte."""

    def __init__(self, net: NetThread, node: Node, name: str, nbytes: int) -> None:
        self._net = net
        self._me = node.me
        self._name = f"floor/{name}"
        self._payload = bytearray(nbytes)
        self._served = threading.Event()
        # The node's own daemon: what differs between the rows is then our code alone.
        self._p2p = node._daemon.p2p  # type: ignore[union-attr]
        net.run(self._p2p.add_binary_stream_handler(self._name, self._serve))

    def meet(self, partner: str) -> Met:
        if self._me < partner:
            self._net.run(self._call(partner))
        elif not self._served.wait(MEETING_S):
            return Met(False, 0)
        self._served.clear()
        return Met(True, len(self._payload))

    async def _call(self, partner: str) -> None:
        peer = PeerID.from_base58(partner)
        _, reader, writer = await self._p2p.call_binary_stream_handler(peer, self._name)
        await self._swap(reader, writer)
        await reader.readexactly(1)
        writer.close()

    async def _serve(self, _: Any, reader: StreamReader, writer: StreamWriter) -> None:
        await self._swap(reader, writer)
        writer.write(b"\0")
        await reader.read(1)
        writer.close()
        self._served.set()

    async def _swap(self, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(self._payload)
        missing = len(self._payload)
        while missing:
            part = await reader.read(min(missing, READ_BYTES))
            if not part:
                raise EOFError("the stream of the floor ended early")
            missing -= len(part)
        await writer.drain()


class WatchedDesk(Desk):
    """A desk that tells the training thread that a settlement waits for it."""

    def __init__(self, subject: Replica) -> None:
        super().__init__(subject, wants=lambda step, progress: True)
        self.over = threading.Event()

    def settle(self, settlement: Settlement) -> None:
        super().settle(settlement)
        self.over.set()


class Exchange:
    """Ours: the gossip driver as it trains, with a step boundary after each meeting."""

    def __init__(self, net: NetThread, node: Node, spec: Spec, codec: str) -> None:
        self._net = net
        self._me = node.me
        self._step = 0
        self.replica = Replica(_module(spec), _run(codec), seed=spec.index)
        self._desk = WatchedDesk(self.replica)
        self._status = Status(incarnation=1, counter=1, state="training")
        self._membership = Membership(node.me, renew_s=10.0)
        around = Surroundings(
            transport=Scoped(node, codec),
            membership=self._membership,
            links=Links(),
            mine=lambda: self._status,
            offload=to_thread,
            emit=self._failed,
        )
        cadence = every_h.EveryH(every_h.EveryH.Config(h=1))
        matching = random_pairs.RandomPairs(random_pairs.RandomPairs.Config())
        window = Window(node.me, cadence, matching, random.Random(spec.index))
        self._gossip = Gossip(around, window, self._desk, self.replica, incarnation=1)
        self._gossip.stance = "train"
        net.run(self._gossip.open())
        self._boundary()

    def know(self, peers: list[str]) -> None:
        """As after a look into the phone book: from now on digests speak of all peers."""
        for peer in peers:
            self._membership.observe(peer, replace(self._status), self._gossip._around.clock())

    def meet(self, partner: str) -> Met:
        if self._me < partner:
            self._net.run(self._gossip.offer(partner, "train", 0))
        else:
            self._desk.over.wait(MEETING_S)
        events = self._boundary()
        ok = [event.outcome for event in events] == [End.APPLIED.value]
        return Met(ok, sum(event.bytes_sent for event in events))

    def _boundary(self) -> list[ExchangeDone]:
        self._desk.over.clear()
        self._step += 1
        return self._desk.boundary(self._step, 0.0)

    def _failed(self, event: ExchangeDone) -> None:
        print(f"a meeting {event.outcome}: {event.reason}", file=sys.stderr, flush=True)
        self._desk.over.set()


class Scoped:
    """A transport with topics of its own, so that two exchanges share one node."""

    def __init__(self, node: Node, scope: str) -> None:
        self._node = node
        self._scope = scope
        self.me = node.me

    async def open(self, peer: str, topic: str, deadline_s: float) -> FrameStream:
        return await self._node.open(peer, f"{self._scope}/{topic}", deadline_s)

    async def serve(self, topic: str, handler: Handler) -> None:
        await self._node.serve(f"{self._scope}/{topic}", handler)


def main(pipe: Connection, spec: Spec) -> None:
    """Begin a peer, say who it is, get to know the others, then do as told until None."""
    torch.set_num_threads(1)
    net = NetThread().start()
    options = NodeOptions(
        identity=load_or_create(spec.folder / f"{spec.index}.key"),
        fingerprint=FINGERPRINT,
        bootstrap=spec.bootstrap,
        listen=Listen(host="127.0.0.1"),
    )
    node = net.run(Node.start(options))
    try:
        pipe.send((node.me, node.addresses[0]))
        ways = _ways(net, node, spec)
        _meet_everybody(net, node, ways, pipe.recv())
        pipe.send(None)
        while (order := pipe.recv()) is not None:
            pipe.send(_obey(order, ways, node))
    except (EOFError, SwarmnetError) as error:
        print(f"peer {spec.index} ends: {error!r}", file=sys.stderr, flush=True)
    finally:
        net.run(node.close())
        net.stop()


def _ways(net: NetThread, node: Node, spec: Spec) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    for codec in spec.codecs:
        exchange = Exchange(net, node, spec, codec)
        ways[codec] = exchange
        ways[f"floor {codec}"] = BareStreams(net, node, codec, exchange.replica.nbytes)
    return ways


def _meet_everybody(
    net: NetThread, node: Node, ways: dict[str, Way], peers: dict[str, str]
) -> None:
    """Connect each pair once, from the smaller id, so that no row pays for connecting."""
    for peer, address in peers.items():
        if node.me < peer:
            net.run(node.dial(address))
    for way in ways.values():
        if isinstance(way, Exchange):
            way.know([peer for peer in peers if peer != node.me])


def _obey(order: Meet | str, ways: dict[str, Way], node: Node) -> Any:
    if isinstance(order, Meet):
        return ways[order.way].meet(order.partner)
    pids = {"peer": os.getpid(), "p2pd": node.daemon_pid}
    measure = cpu_seconds if order == "cpu" else resident_bytes
    return {name: measure(pid) for name, pid in pids.items()}


def _module(spec: Spec) -> nn.Module:
    torch.manual_seed(spec.index)
    module = nn.Module()
    module.vector = nn.Parameter(torch.randn(spec.parameters))
    return module


def _run(codec: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "schema": 1,
            "name": "averaging",
            "target": {"tokens": 1, "minutes": 1.0},
            "model": "causal_lm",
            "outer": "average",
            "codec": codec,
        }
    )
