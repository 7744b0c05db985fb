"""An offer that comes a little early: HOLD, and the answer when the window has opened."""

import asyncio

import pytest

from swarmnet.errors import StreamCut
from swarmnet.exchange.driver import TOPIC
from swarmnet.exchange.pair import End
from swarmnet.exchange.window import MAX_HOLD_S
from swarmnet.sim import clock
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Decline, Offer
from tests.unit.swarms import LAW, NAMES, drift, outcomes, pair

BOB = NAMES[1]
H = 10
"""Welcome from the fifth step on; the pairs of these tests stand at the third."""


async def call(swarm, bob, patience_s, name="peerStranger"):
    """A stream of a stranger who has offered, and when."""
    offer = Offer(
        round=1 << 30,
        phase="train",
        index=0,
        layout=bob.subject.layout,
        nbytes=bob.subject.nbytes,
        patience_s=patience_s,
    )
    stream = await swarm.network.transport(name).open(BOB, TOPIC, 5)
    await stream.send(offer.frame(), 5)
    return stream


def test_a_patient_caller_is_answered_when_the_window_opens():
    async def main():
        swarm, _, bob = await pair(h=H)
        stream = await call(swarm, bob, 10.0)
        assert (await stream.receive(0.5)).kind is Kind.HOLD
        assert bob.steps < H / 2
        assert not bob.gossip.free
        assert (await stream.receive(5)).kind is Kind.ACCEPT
        assert bob.steps == H / 2

    clock.run(main())


@pytest.mark.parametrize("patience_s", [0.0, 0.5])
def test_who_has_no_patience_is_declined_at_once(patience_s):
    async def main():
        swarm, _, bob = await pair(h=H)
        stream = await call(swarm, bob, patience_s)
        assert Decline.parse(await stream.receive(0.5)).reason == "early"
        assert bob.gossip.free

    clock.run(main())


def test_only_one_caller_is_held():
    async def main():
        swarm, _, bob = await pair(h=H)
        first = await call(swarm, bob, 10.0)
        assert (await first.receive(0.5)).kind is Kind.HOLD
        second = await call(swarm, bob, 10.0, "peerOther")
        assert Decline.parse(await second.receive(0.5)).reason == "busy"
        assert (await first.receive(5)).kind is Kind.ACCEPT

    clock.run(main())


def test_a_window_that_does_not_open_in_time_ends_the_patience():
    async def main():
        swarm, _, bob = await pair(h=H)
        stream = await call(swarm, bob, 4.0)
        assert (await stream.receive(0.5)).kind is Kind.HOLD
        bob.slowdown = 100.0
        assert Decline.parse(await stream.receive(5)).reason == "early"
        assert bob.gossip.free

    clock.run(main())


def test_a_pause_ends_the_hold():
    async def main():
        swarm, _, bob = await pair(h=H)
        stream = await call(swarm, bob, 10.0)
        assert (await stream.receive(0.5)).kind is Kind.HOLD
        bob.gossip.paused = True
        assert Decline.parse(await stream.receive(5)).reason == "paused"

    clock.run(main())


def test_a_caller_that_leaves_is_forgotten_at_once():
    async def main():
        swarm, ann, bob = await pair(h=H)
        stream = await call(swarm, bob, 10.0)
        assert (await stream.receive(0.5)).kind is Kind.HOLD
        await stream.close()
        await asyncio.sleep(0.5)
        assert bob.gossip.free
        assert bob.steps < H / 2
        await asyncio.sleep(5)
        assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED
        await swarm.settle()
        assert outcomes(bob) == {"ok": 1}

    clock.run(main())


def test_a_caller_that_speaks_while_it_is_held_is_at_fault():
    async def main():
        swarm, _, bob = await pair(h=H)
        stream = await call(swarm, bob, 10.0)
        assert (await stream.receive(0.5)).kind is Kind.HOLD
        await stream.send(Frame(Kind.PART, b"1"), 5)
        with pytest.raises(StreamCut):
            await stream.receive(1)
        assert bob.gossip.free

    clock.run(main())


def test_a_cancelled_call_leaves_the_one_that_holds_it():
    async def main():
        _, ann, bob = await pair(h=2 * H)
        ann.window.ripen(ann.steps, 0.0)
        await asyncio.sleep(3.5)
        calling = asyncio.create_task(ann.gossip.offer(BOB, "train", 0))
        await asyncio.sleep(0.5)
        assert not bob.gossip.free
        calling.cancel()
        await asyncio.sleep(0.5)
        assert bob.gossip.free
        assert ann.gossip.free
        assert outcomes(bob) == {}

    clock.run(main())


def test_nobody_is_held_for_longer_than_the_own_patience():
    async def main():
        swarm, _, bob = await pair(h=1000)
        stream = await call(swarm, bob, 1e9)
        assert Decline.parse(await stream.receive(0.5)).reason == "early"
        assert bob.window.patience_s <= MAX_HOLD_S

    clock.run(main())


def test_one_offer_is_enough_and_the_wait_is_not_blamed_on_the_link():
    async def main():
        swarm, ann, bob = await pair(h=2 * H)
        ann.window.ripen(ann.steps, 0.0)
        await asyncio.sleep(3.5)
        began = ann.around.clock()
        assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED
        assert ann.around.clock() - began > 1.0
        assert swarm.network.traffic.opened[TOPIC] == 1
        await swarm.settle()
        assert outcomes(ann, bob) == {"ok": 2}
        [met] = ann.events
        assert 0 < met.answer_s < 0.5
        assert met.start_s < 0.5 < met.seconds
        assert drift(swarm.peers) < LAW

    clock.run(main())
