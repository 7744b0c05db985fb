"""A simulated swarm for tests: how it is put together, hurt, and judged."""

import asyncio
from collections import Counter

import numpy as np

from swarmnet.registry import find
from swarmnet.sim import swarm as sim
from swarmnet.sim.network import Link, SimNetwork
from swarmnet.sim.peer import SimOptions

LAW = 1e-12
NAMES = [sim.peer_name(number) for number in range(10)]
SLOW = Link(latency_s=0.2, bandwidth=200.0)
"""A meeting takes about three seconds: long enough to be hit in every phase."""


def choice(folder, name, **options):
    chosen = find(folder, name)
    return chosen(chosen.Config(**options))


class Swarm(sim.Swarm):
    """``n`` peers that meet every ``h`` steps of about a second."""

    def __init__(self, n, h=1, seed=0, link=None, step_s=1.0):
        link = link or Link()
        options = SimOptions(
            choice("matching", "random_pairs"), choice("cadence", "every_h", h=h), step_s=step_s
        )
        super().__init__(n, options, SimNetwork(lambda a, b: link), seed)
        self.standing = []

    async def stand(self):
        """Train and answer, but offer only when the test says so."""
        for peer in self.peers:
            await peer.gossip.open()
            peer.gossip.stance = "train"
            for work in (peer._renew(), peer._train()):
                self.network.own(peer.me, asyncio.create_task(work))
        self.standing = list(self.peers)
        return self

    def roam(self):
        """From here on the standing peers offer and ask by themselves."""
        for peer in self.standing:
            if peer in self.peers:
                self.network.own(peer.me, asyncio.create_task(peer.gossip.run()))

    async def settle(self, peers=None, calm_s=30.0):
        """No more faults: let open questions be asked, then let meetings under way end."""
        peers = peers or self.peers
        self.network.cuts.clear()
        for _ in range(20):
            await asyncio.sleep(calm_s)
            if not any(len(peer.gossip.pending) for peer in peers):
                break
        for peer in peers:
            peer.gossip.paused = True
        await asyncio.sleep(30.0)
        for peer in peers:
            assert peer.gossip.free, "a meeting is left marked busy"
            assert len(peer.gossip.pending) == 0
            assert peer.desk._out is None, "a snapshot never came back"
            assert not peer.gossip.decisions._open
        assert self.network.bugs == []
        assert not any(self.network._streams.values()), "a stream was left open"

    def resume(self):
        for peer in self.peers:
            peer.gossip.paused = False


async def pair(**options):
    """Two peers with a snapshot each that only meet when the test says so."""
    swarm = await Swarm(2, **options).stand()
    await asyncio.sleep(3.0)
    return swarm, *swarm.peers


def drift(peers, base=0.0):
    """Distance of the mean from where the increments of training alone would have it."""
    mean = np.mean([p.subject.live - p.started - p.added for p in peers], axis=0)
    return float(np.abs(mean - base).max())


def offset(peers):
    """What meetings with others have added to the mean so far."""
    return np.mean([p.subject.live - p.started - p.added for p in peers], axis=0)


def outcomes(*peers):
    return Counter(event.outcome for peer in peers for event in peer.events)


def one_sided(peers):
    """Meetings among ``peers`` that only one of the two sides has applied."""
    ids = {peer.me for peer in peers}
    applied = {
        peer.me: Counter(
            (event.partner, event.round)
            for event in peer.events
            if event.outcome in ("ok", "late") and event.partner in ids
        )
        for peer in peers
    }
    return [
        (me, key)
        for me, meetings in applied.items()
        for key, count in meetings.items()
        if applied[key[0]][me, key[1]] != count
    ]
