"""How old is the live view, and what does it cost? The phone book alone, and with digests.

`view`, in virtual time: for each pair of live peers the age of the newest counter that one knows of
the other, the share of live peers that are taken for dead, how long until a crash is noticed, and
how often a peer reads the whole book. `traffic`, over real daemons on loopback: calls and bytes of
the DHT and CPU seconds, with a read at every renewal and with reads when they pay. The nodes hear
each other's digests as from meetings, but without streams: all traffic is the DHT's.

Example: python tests/bench/membership.py --json
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from procfs import children, cpu_seconds

from swarmnet.exchange.membership import Membership, Status
from swarmnet.net import phonebook
from swarmnet.net.daemon import Listen
from swarmnet.net.identity import load_or_create
from swarmnet.net.node import Node, NodeOptions
from swarmnet.registry import find
from swarmnet.sim import clock
from swarmnet.sim.network import SimNetwork
from swarmnet.sim.peer import PhoneBook, SimOptions, SimPeer

RENEW_S = 10.0
WARM_UP_S, WATCHED_S, EVERY_S = 60.0, 63.0, 7.0
CRASHED = 1 / 16
MODES = ("book alone", "book and digests", "book when it pays")
NODE_RENEW_S, NODE_RENEWALS, NODE_WARM_UP = 2.0, 20, 5
MEETINGS = 5
"""That each node holds in a renewal, as with a window of two seconds."""
LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZabcdefghj"


# ---- the age of the view ------------------------------------------------------------------------


def view(peers: int, steps: int, mode: str) -> dict[str, Any]:
    """One swarm that renews every 10 s and meets every ``steps`` steps of about a second."""
    began = time.perf_counter()
    figures = clock.run(_watch(peers, steps, mode))
    took = time.perf_counter() - began
    row = {"peers": peers, "window_s": steps, "mode": mode, **figures}
    print(f"{row} in {took:.0f} s", file=sys.stderr, flush=True)
    return row


async def _watch(count: int, steps: int, mode: str) -> dict[str, Any]:
    matching, cadence = find("matching", "random_pairs"), find("cadence", "every_h")
    options = SimOptions(
        matching(matching.Config()), cadence(cadence.Config(h=steps)), renew_s=RENEW_S
    )
    network, book, dice = SimNetwork(), PhoneBook(), random.Random(count)
    peers = [SimPeer(_name(i), network, book, options, seed=i) for i in range(count)]
    await asyncio.gather(*(_begin(p, mode, dice.uniform(0, RENEW_S)) for p in peers))
    await asyncio.sleep(WARM_UP_S)
    reads = sum(peer.lookout.reads for peer in peers)
    ages, lost = [], []
    for _ in range(int(WATCHED_S / EVERY_S)):
        await asyncio.sleep(EVERY_S)
        ages += _ages(peers)
        lost += [q.me for p in peers for q in peers if p is not q and _dead(p, q)]
    reads = sum(peer.lookout.reads for peer in peers) - reads
    ages.sort()
    return {
        "age_median_s": round(ages[len(ages) // 2], 2),
        "age_p99_s": round(ages[int(0.99 * len(ages))], 2),
        "age_max_s": round(ages[-1], 2),
        "taken_for_dead": len(lost) / len(ages),
        "reads_per_renewal": round(reads / count / (WATCHED_S / RENEW_S), 3),
        **await _crash(network, peers),
    }


async def _begin(peer: SimPeer, mode: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    if mode != MODES[2]:
        peer.lookout.due = lambda now: True  # type: ignore[method-assign]
    if mode == MODES[0]:
        view = peer.membership
        view.hear = lambda peer, digest, now: view.clear(peer)  # type: ignore[method-assign]
    peer._born = clock.now()
    await peer.start()


def _ages(peers: list[SimPeer]) -> list[float]:
    """Now minus the time at which the newest counter that is known of a peer was issued."""
    now, born = clock.now(), {peer.me: peer._born for peer in peers}
    return [
        now - born[other] - member.heard / 1000
        for peer in peers
        for other, member in peer.membership._members.items()
    ]


def _dead(observer: SimPeer, observed: SimPeer) -> bool:
    return observer.membership.is_dead(observed.me, clock.now())


async def _crash(network: SimNetwork, peers: list[SimPeer]) -> dict[str, float]:
    """Seconds until one survivor, and all survivors, hold a crashed peer for dead."""
    gone = peers[: max(1, int(len(peers) * CRASHED))]
    left = peers[len(gone) :]
    for peer in gone:
        network.crash(peer.me)
    at = clock.now()
    noticed: dict[tuple[str, str], float] = {}
    while len(noticed) < len(gone) * len(left) and clock.now() - at < 30 * RENEW_S:
        await asyncio.sleep(1.0)
        for peer in gone:
            for other in left:
                if _dead(other, peer):
                    noticed.setdefault((other.me, peer.me), clock.now() - at)
    times = list(noticed.values())
    return {
        "crash_noticed_median_s": statistics.median(times),
        "crash_noticed_max_s": max(times),
        "crash_unnoticed": len(gone) * len(left) - len(noticed),
    }


def _name(index: int) -> str:
    return "peer" + "".join(LETTERS[(index >> shift) % 32] for shift in (10, 5, 0)) + "xx"


# ---- what the DHT costs -------------------------------------------------------------------------


class Counts:
    """Calls of the DHT that anybody answered, and their bytes both ways."""

    def __init__(self) -> None:
        self.calls = 0
        self.bytes = 0

    def wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        async def counted(protocol: Any, request: Any, context: Any) -> Any:
            response = await method(protocol, request, context)
            self.calls += 1
            self.bytes += request.ByteSize() + response.ByteSize()
            return response

        return counted


@contextmanager
def counting() -> Iterator[Counts]:
    from hivemind.dht.protocol import DHTProtocol  # after the quiet import by swarmnet.net

    counts, kept = Counts(), {}
    for name in ("rpc_ping", "rpc_store", "rpc_find"):
        kept[name] = getattr(DHTProtocol, name)
        setattr(DHTProtocol, name, counts.wrap(kept[name]))
    try:
        yield counts
    finally:
        for name, method in kept.items():
            setattr(DHTProtocol, name, method)


async def traffic(count: int, mode: str) -> dict[str, Any]:
    """``count`` nodes of one process; ``idle`` are nodes without phone books."""
    with tempfile.TemporaryDirectory() as folder, counting() as counts:
        nodes = await _nodes(Path(folder), count)
        books = []
        try:
            if mode != "idle":
                books = [await _book(node, mode) for node in nodes]
            talk = asyncio.create_task(_talk(books))
            await asyncio.sleep(NODE_WARM_UP * NODE_RENEW_S)
            counts.calls = counts.bytes = 0
            cpu, reads = _cpu(), sum(book.reads for book in books)
            await asyncio.sleep(NODE_RENEWALS * NODE_RENEW_S)
            share = count * NODE_RENEWALS
            row = {
                "nodes": count,
                "mode": mode,
                "calls": counts.calls / share,
                "bytes": counts.bytes / share,
                "cpu_s": (_cpu() - cpu) / share,
                "reads": (sum(book.reads for book in books) - reads) / share,
            }
            talk.cancel()
            await asyncio.gather(*(book.leave() for book in books))
        finally:
            await asyncio.gather(*(node.close() for node in nodes))
    print(row, file=sys.stderr, flush=True)
    return row


async def _nodes(folder: Path, count: int) -> list[Node]:
    nodes: list[Node] = []
    for index in range(count):
        options = NodeOptions(
            identity=load_or_create(folder / f"key{index}"),
            fingerprint="ab" * 16,
            bootstrap=tuple(nodes[0].addresses) if nodes else (),
            listen=Listen("127.0.0.1"),
        )
        nodes.append(await Node.start(options))
    return nodes


async def _book(node: Node, mode: str) -> phonebook.Phonebook:
    view = Membership(node.me, NODE_RENEW_S)
    options = phonebook.PhonebookOptions(NODE_RENEW_S, "nobody")
    book = phonebook.Phonebook(node, view, lambda: Status(0, 0, "training"), options)
    if mode != MODES[2]:
        reads = mode == MODES[1]
        book._lookout.due = lambda now: reads  # type: ignore[method-assign]
    await book.start()
    return book


async def _talk(books: list[phonebook.Phonebook]) -> None:
    """Two frames at each meeting of two, as over a stream."""
    dice = random.Random(1)
    while books:
        await asyncio.sleep(2 * NODE_RENEW_S / MEETINGS / len(books))
        one, other = dice.sample(books, 2)
        now = time.monotonic()
        there = one._membership.digest(one.mine(), now)
        back = other._membership.digest(other.mine(), now)
        other._membership.hear(one._node.me, there, now)
        one._membership.hear(other._node.me, back, now)


def _cpu() -> float:
    own = time.process_time()
    return own + sum(cpu_seconds(pid) for pid in children(os.getpid()))


async def costs(count: int) -> dict[str, Any]:
    """Per peer and renewal; ratios are reading when it pays over reading at every renewal."""
    pays = await traffic(count, MODES[2])
    with _orders_every(1):
        always = await traffic(count, MODES[1])
    with _orders_every(10**6):
        writes = await traffic(count, "writes alone")
    idle = await traffic(count, "idle")
    keys = ("calls", "bytes", "cpu_s")
    ratio = {key: (pays[key] - idle[key]) / (always[key] - idle[key]) for key in keys}
    return {"rows": [always, pays, writes, idle], "ratio": ratio}


@contextmanager
def _orders_every(renewals: int) -> Iterator[None]:
    kept, phonebook._ORDER_RENEWALS = phonebook._ORDER_RENEWALS, renewals
    try:
        yield
    finally:
        phonebook._ORDER_RENEWALS = kept


# ---- both ---------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--windows", type=int, nargs="+", default=[10, 2], help="steps of 1 s")
    parser.add_argument("--nodes", type=int, default=8, help="real ones; 0 leaves them out")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = [
        view(peers, steps, mode)
        for peers in options.peers
        for steps in options.windows
        for mode in MODES
    ]
    cost = asyncio.run(costs(options.nodes)) if options.nodes else None
    if options.json:
        print(json.dumps({"renew_s": RENEW_S, "view": rows, "traffic": cost}))
        return
    print(_view_table(rows))
    if cost:
        print(_cost_table(cost))


def _view_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'peers':>6}{'window':>8}  {'':20}{'median':>8}{'p99':>8}{'max':>8}{'lost':>9}"
        f"{'reads':>8}{'crash seen':>12}{'by all':>8}"
    ]
    lines += [
        f"{r['peers']:6}{r['window_s']:7}s  {r['mode']:20}{r['age_median_s']:7.1f}s"
        f"{r['age_p99_s']:7.1f}s{r['age_max_s']:7.1f}s{r['taken_for_dead']:9.3%}"
        f"{r['reads_per_renewal']:8.2f}{r['crash_noticed_median_s']:11.1f}s"
        f"{r['crash_noticed_max_s']:7.1f}s"
        for r in rows
    ]
    return "\n".join(lines)


def _cost_table(cost: dict[str, Any]) -> str:
    lines = [f"\nper peer and renewal{'':14}{'reads':>8}{'calls':>8}{'bytes':>10}{'cpu ms':>9}"]
    lines += [
        f"{r['nodes']:4} nodes, {r['mode']:21}{r['reads']:8.2f}{r['calls']:8.1f}{r['bytes']:10.0f}"
        f"{1000 * r['cpu_s']:9.1f}"
        for r in cost["rows"]
    ]
    ratio = cost["ratio"]
    lines.append(
        f"ratio, idle taken off: calls {ratio['calls']:.2f}, bytes {ratio['bytes']:.2f}, "
        f"cpu {ratio['cpu_s']:.2f}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
