"""Letters after a peer has left a stage: nobody goes on writing into a box that nobody empties."""

from __future__ import annotations

import asyncio

from swarmnet.pipeline.post import Post
from swarmnet.sim import clock
from swarmnet.sim.network import SimNetwork
from swarmnet.wire.letters import Forget


class Inbox:
    def __init__(self):
        self.heard, self.gone = [], []

    def room(self, letter):
        return 0

    def letter(self, peer, letter, payload):
        self.heard.append((peer, letter.samples))

    def lost(self, peer):
        self.gone.append(peer)


def letter(sample):
    return Forget(samples=(sample,))


def test_who_writes_to_a_closed_box_hears_of_it_and_reaches_the_next_one():
    async def main():
        network = SimNetwork(seed=1)
        mine, old, new = Inbox(), Inbox(), Inbox()
        post = Post(network.transport("a"), mine)
        left = Post(network.transport("b"), old)
        await post.open()
        await left.open()
        post.send("b", letter(1))
        await asyncio.sleep(1)
        assert old.heard == [("a", (1,))]
        await left.close()
        await asyncio.sleep(1)
        assert mine.gone == ["b"]
        post.send("b", letter(2))
        await asyncio.sleep(1)
        assert (old.heard[1:], mine.gone) == ([], ["b", "b"])
        await Post(network.transport("b"), new).open()
        post.send("b", letter(3))
        await asyncio.sleep(1)
        assert new.heard == [("a", (3,))]
        await post.close()

    clock.run(main())
