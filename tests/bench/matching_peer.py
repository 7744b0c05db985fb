"""One process of ``matching.py``: a real node that meets as it likes, around a plain vector.

It "trains" by waiting. For each policy it makes a fresh random vector, meets for a while in
topics of its own on the shared node, and says what came of it.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarmnet.cadence.every_h import EveryH
from swarmnet.config import Choice
from swarmnet.errors import SwarmnetError
from swarmnet.events import ExchangeDone
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.driver import Gossip, Surroundings
from swarmnet.exchange.links import Links
from swarmnet.exchange.membership import Membership, Status
from swarmnet.exchange.pair import End
from swarmnet.exchange.transport import FrameStream, Handler
from swarmnet.exchange.window import Window
from swarmnet.net.daemon import Listen
from swarmnet.net.identity import load_or_create
from swarmnet.net.node import Node, NodeOptions
from swarmnet.net.thread import NetThread
from swarmnet.sim.peer import VectorSubject
from swarmnet.wire.messages import Phase

FINGERPRINT = "ae" * 16
STEP_S = 0.1
H = 4
SETTLE_S = 2.0
FOREVER_S = 3600.0


@dataclass(frozen=True)
class Spec:
    """What a process is told when it starts."""

    index: int
    folder: Path
    bootstrap: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """Meet under ``policy`` for ``seconds``; ``scope`` keeps runs apart on one node."""

    scope: str
    policy: Choice
    numbers: int
    seconds: float
    seed: int


@dataclass(frozen=True)
class Answer:
    """The vector before and after, and what happened between."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    partners: list[str]
    """Of meetings that this peer offered and applied."""
    offers: int
    bytes_sent: int
    windows: int


class Meeter:
    """A gossip peer under one policy, all in the network's loop."""

    def __init__(self, node: Node, others: list[str], order: Order) -> None:
        self._order = order
        self._random = random.Random(f"{order.seed}/{node.me}")
        vector = np.random.default_rng([order.seed, *node.me.encode()]).normal(size=order.numbers)
        self._subject = VectorSubject(vector)
        status = Status(incarnation=1, counter=1, state="training")
        members = Membership(node.me, renew_s=FOREVER_S)
        self.events: list[ExchangeDone] = []
        around = Surroundings(
            transport=Scoped(node, order.scope),
            membership=members,
            links=Links(),
            mine=lambda: status,
            offload=inline,
            emit=self.events.append,
        )
        for peer in others:
            members.observe(peer, replace(status), around.clock())
        cadence = EveryH(EveryH.Config(h=H))
        matching = order.policy.build("matching")
        self._window = Window(node.me, cadence, matching, self._random)
        self._desk = Desk(self._subject, self._window.welcome_at)
        self._gossip = Gossip(around, self._window, self._desk, self._subject, incarnation=1)

    async def run(self) -> Answer:
        gossip, before = self._gossip, self._subject.live.copy()
        offers, partners = self._count_offers()
        await gossip.open()
        gossip.stance = "train"
        roaming = asyncio.create_task(gossip.run())
        loop = asyncio.get_running_loop()
        ends_at, step = loop.time() + self._order.seconds, 0
        while loop.time() < ends_at + SETTLE_S:
            gossip.paused = loop.time() >= ends_at
            step += 1
            self.events += self._desk.boundary(step, 0.0)
            await asyncio.sleep(STEP_S * self._random.uniform(0.9, 1.1))
        roaming.cancel()
        sent = sum(event.bytes_sent for event in self.events)
        return Answer(before, self._subject.live, partners, len(offers), sent, self._window.number)

    def _count_offers(self) -> tuple[list[str], list[str]]:
        """Everybody that is called from now on, and those with whom it came to a meeting."""
        offer, called, met = self._gossip.offer, list[str](), list[str]()

        async def counted(peer: str, phase: Phase, index: int) -> End:
            called.append(peer)
            end = await offer(peer, phase, index)
            if end is End.APPLIED:
                met.append(peer)
            return end

        self._gossip.offer = counted  # type: ignore[method-assign]
        return called, met


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


class Scoped:
    """A transport with topics of its own, so that one run after another shares the node."""

    def __init__(self, node: Node, scope: str) -> None:
        self._node = node
        self._scope = scope
        self.me = node.me

    async def open(self, peer: str, topic: str, deadline_s: float) -> FrameStream:
        return await self._node.open(peer, f"{self._scope}/{topic}", deadline_s)

    async def serve(self, topic: str, handler: Handler) -> None:
        await self._node.serve(f"{self._scope}/{topic}", handler)


def main(pipe: Connection, spec: Spec) -> None:
    """Begin a peer, say who it is, get to know the others, then obey orders until None."""
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
        peers: dict[str, str] = pipe.recv()
        for peer, address in peers.items():
            if node.me < peer:
                net.run(node.dial(address))
        pipe.send(None)
        others = [peer for peer in peers if peer != node.me]
        while (order := pipe.recv()) is not None:
            pipe.send(net.run(meet(node, others, order)))
    except (EOFError, SwarmnetError) as error:
        print(f"peer {spec.index} ends: {error!r}", file=sys.stderr, flush=True)
    finally:
        net.run(node.close())
        net.stop()


async def meet(node: Node, others: list[str], order: Order) -> Answer:
    return await Meeter(node, others, order).run()
