"""Letters between peers: in order, bounded, and a lost line is told."""

import asyncio

from swarmnet.pipeline import post
from swarmnet.pipeline.post import Post
from swarmnet.sim.clock import run
from swarmnet.sim.network import SimNetwork
from swarmnet.wire.letters import Backward


class Box:
    def __init__(self):
        self.came, self.lines_lost = [], []

    def room(self, letter):
        return 1 << 20

    def letter(self, peer, letter, payload):
        self.came.append((letter.sample, bytes(payload)))

    def lost(self, peer):
        self.lines_lost.append(peer)


def letter(sample, nbytes):
    return Backward(sample=sample, attempt=0, stage=0, version=0, nbytes=nbytes)


async def two():
    network = SimNetwork()
    boxes = Box(), Box()
    posts = [Post(network.transport(name), box) for name, box in zip("ab", boxes, strict=True)]
    for one in posts:
        await one.open()
    return network, posts[0], *boxes


def test_letters_come_in_order_with_what_they_bring():
    async def main():
        _, sender, _, there = await two()
        for number in range(5):
            sender.send("b", letter(number, number), (bytes([number]) * number,))
        await asyncio.sleep(1.0)
        assert there.came == [(number, bytes([number]) * number) for number in range(5)]

    run(main())


def test_a_peer_that_does_not_read_costs_bounded_memory_and_its_sender_is_told(monkeypatch):
    monkeypatch.setattr(post, "MAX_QUEUED_BYTES", 10_000)

    async def main():
        network, sender, here, there = await two()
        network.partition("a", "b")
        for number in range(20):
            sender.send("b", letter(number, 900), (bytes(900),))
        assert here.lines_lost == []
        await asyncio.sleep(0.0)
        assert here.lines_lost == ["b"]
        network.heal("a", "b")
        await asyncio.sleep(1.0)
        sender.send("b", letter(50, 0))
        await asyncio.sleep(1.0)
        assert there.came[-1] == (50, b"")

    run(main())
