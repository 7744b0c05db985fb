"""Back into the run when every bootstrap is gone, and how a node tells what it is seen as."""

import asyncio
import os
import signal
import socket

import pytest
from support import options, until

from swarmnet.errors import UnreachableError
from swarmnet.net import addressbook, dialback, neighbours
from swarmnet.net.daemon import Listen
from swarmnet.net.dialback import Dialback
from swarmnet.net.node import Node
from swarmnet.wire.messages import Dial, Dialed


def booked(folder, name, bootstrap=(), **changes):
    return options(folder, name, bootstrap, book=folder / f"{name}.json", **changes)


async def closed(*nodes):
    await asyncio.gather(*(node.close() for node in nodes))


async def met(*nodes):
    """Everybody is connected to everybody, and has it in the book."""

    def written(node):
        book = addressbook.load(node.options.book, node.options.fingerprint)
        return {node.me, *(entry.peer for entry in book.peers)} >= {other.me for other in nodes}

    await until(lambda: all(written(node) for node in nodes), 20.0)


async def introduced(*nodes):
    """As the phone book does it."""
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.learn(other.me, other.addresses)
                await node.dial(other.addresses[0])
    await met(*nodes)


def test_a_restart_works_when_every_bootstrap_is_gone(tmp_path):
    async def main():
        one = await Node.start(booked(tmp_path, "one"))
        invite = one.addresses
        two = await Node.start(booked(tmp_path, "two", invite))
        three = await Node.start(booked(tmp_path, "three", invite))
        await introduced(one, two, three)
        await closed(one, three)
        await two.publish("peers", {"n": 2})
        three = await Node.start(booked(tmp_path, "three", invite))
        assert await three.lookup("peers") == {two.me: {"n": 2}}
        await closed(two, three)

    asyncio.run(main())


def test_all_come_back_from_a_power_cut_without_any_bootstrap(tmp_path):
    async def main():
        one = await Node.start(booked(tmp_path, "one"))
        invite = one.addresses
        two = await Node.start(booked(tmp_path, "two", invite))
        three = await Node.start(booked(tmp_path, "three", invite))
        await introduced(one, two, three)
        before = two.addresses
        await closed(one, two, three)

        async def late():
            await asyncio.sleep(2.0)
            return await Node.start(booked(tmp_path, "three", invite))

        two, three = await asyncio.gather(Node.start(booked(tmp_path, "two", invite)), late())
        assert two.addresses == before
        await three.publish("peers", {"n": 3})
        await until(lambda: found(two, three))
        await closed(two, three)

    async def found(node, other):
        return other.me in await node.lookup("peers")

    asyncio.run(main())


def test_nobody_of_the_book_lives(tmp_path, monkeypatch):
    monkeypatch.setattr("swarmnet.net.node.PATIENCE_S", 1.0)

    async def main():
        one = await Node.start(booked(tmp_path, "one"))
        two = await Node.start(booked(tmp_path, "two", one.addresses))
        three = await Node.start(booked(tmp_path, "three", one.addresses))
        await introduced(one, two, three)
        await closed(one, two, three)
        with pytest.raises(UnreachableError, match="nor anybody of the address book") as caught:
            await Node.start(booked(tmp_path, "two", one_address))
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)

    one_address = (f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/{stranger(tmp_path)}",)
    asyncio.run(main())


def stranger(folder):
    return options(folder, "stranger").identity.peer_id


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_who_was_frozen_for_long_is_a_neighbour_again(tmp_path, monkeypatch):
    """Stopped for so long that it fell out of the tables; nothing is redialled by the daemon."""
    monkeypatch.setattr(neighbours, "REDIAL_S", 1.0)
    monkeypatch.setattr("swarmnet.net.node._TEND_S", 0.5)

    async def main():
        one = await Node.start(booked(tmp_path, "one"))
        two = await Node.start(booked(tmp_path, "two", one.addresses))
        healed = asyncio.Event()
        two.on_healed = healed.set
        await until(lambda: one.me in two._directory.known)
        os.kill(one.daemon_pid, signal.SIGSTOP)
        await until(lambda: calls_fail(two, one))
        os.kill(one.daemon_pid, signal.SIGCONT)
        await asyncio.wait_for(healed.wait(), 20.0)
        assert one.me in two._directory.known
        await closed(one, two)

    async def calls_fail(node, other):
        await node._directory.greet(other.me)
        return other.me not in node._directory.known

    asyncio.run(main())


def test_ipv6_and_both_families(tmp_path):
    async def main():
        one = await Node.start(options(tmp_path, "one", listen=Listen("[::1]")))
        assert all(address.startswith("/ip6/::1/tcp/") for address in one.addresses)
        two = await Node.start(options(tmp_path, "two", one.addresses, listen=Listen("::1")))
        await two.publish("peers", {"n": 2})
        await until(lambda: sees(one, two))
        both = await Node.start(options(tmp_path, "both", two.addresses, listen=Listen()))
        ports = {address.split("/tcp/")[1].split("/")[0] for address in both.addresses}
        assert len(ports) == 1
        assert {address.split("/")[1] for address in both.addresses} == {"ip4", "ip6"}
        four = [address for address in both.addresses if "/ip4/" in address]
        three = await Node.start(options(tmp_path, "three", four))
        assert await three.lookup("peers") == {two.me: {"n": 2}}
        await closed(one, two, both, three)

    async def sees(node, other):
        return other.me in await node.lookup("peers")

    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    asyncio.run(main())


# ---- who asks how it is seen -------------------------------------------------------------------


class Line:
    """One end of a stream that holds what the other end says and takes what is said to it."""

    def __init__(self, peer, *heard):
        self.peer, self.heard, self.said = peer, list(heard), []

    async def send(self, frame, deadline_s):
        self.said.append(frame)

    async def receive(self, deadline_s):
        return self.heard.pop(0)


@pytest.mark.parametrize("speaks", [True, False])
def test_a_dial_back_believes_only_what_speaks_libp2p(tmp_path, speaks):
    async def main():
        async def listener(reader, writer):
            writer.write(dialback.GREETING if speaks else b"HTTP/1.1 400 Bad\r\n\r\n")
            await reader.read(100)
            writer.close()

        server = await asyncio.start_server(listener, "127.0.0.2", 0)
        port = server.sockets[0].getsockname()[1]
        assert await dialback._speaks_libp2p("127.0.0.2", port) is speaks
        server.close()
        assert not await dialback._speaks_libp2p("127.0.0.2", port)

    asyncio.run(main())


@pytest.mark.parametrize(
    "seen", [[], ["/ip4/45.77.0.2/tcp/1/p2p/{}/p2p-circuit"], ["/ip4/127.0.0.1/tcp/5"]]
)
def test_who_is_not_seen_directly_gets_no_verdict(tmp_path, seen):
    from multiaddr import Multiaddr

    async def main():
        async def ways(peer):
            return [Multiaddr(way.format(stranger(tmp_path))) for way in seen]

        line = Line("x" * 20, Dial(port=4001).frame(), Dial(port=4001).frame())
        await Dialback(ways).answer(line)
        assert Dialed.parse(line.said[0]) == Dialed()

    asyncio.run(main())
