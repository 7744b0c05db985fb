"""One peer among faulty or crossing partners: nobody is believed, nothing is left over."""

import asyncio
import random
from collections import deque

import numpy as np
import pytest

from swarmnet.errors import LinkError, PayloadError
from swarmnet.exchange import ledger, meeting, settling
from swarmnet.exchange.driver import TOPIC
from swarmnet.exchange.pair import End
from swarmnet.sim import clock
from swarmnet.sim.network import Cut
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Accept, Ask, Decline, Have, Offer, Tell
from tests.unit.swarms import LAW, NAMES, SLOW, Swarm, drift, one_sided, outcomes, pair

ANN, BOB, COE, DOT = NAMES[:4]
PAYLOAD = 64


def run(main):
    return clock.run(main)


# ---- who is to blame, and what is not believed -----------------------------------------------


def offered(peer, **changes):
    fields = {
        "round": 1 << 30,
        "phase": "train",
        "index": 0,
        "layout": peer.subject.layout,
        "nbytes": peer.subject.nbytes,
    }
    return Offer(**(fields | changes)).frame()


async def stranger(swarm):
    """A door to the network for a peer that speaks as the test likes."""
    return swarm.network.transport("peerStranger")


def test_an_offer_of_another_size_is_declined_before_a_byte_is_reserved():
    async def main():
        swarm, _, bob = await pair()
        for nbytes in (0, PAYLOAD - 1, 2**61):
            stream = await (await stranger(swarm)).open(BOB, TOPIC, 5)
            await stream.send(offered(bob, nbytes=nbytes), 5)
            assert Decline.parse(await stream.receive(5)).reason == "layout"
            await stream.close()
        assert bob.gossip.free

    run(main())


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(Kind.PART, bytes(PAYLOAD + 1))],
        [Frame(Kind.PART, np.full(8, np.nan).tobytes())],
        [Frame(Kind.PART, np.full(8, np.inf).tobytes()), Have(round=1 << 30).frame()],
        [Have(round=1 << 30).frame()],
        [Frame(Kind.PART, bytes(PAYLOAD)), Have(round=3).frame()],
        [Frame(Kind.PART, bytes(PAYLOAD)), Frame(Kind.PART, b"1")],
        [Frame(Kind.OFFER, b"")],
        [],
    ],
)
def test_a_faulty_offerer_changes_nothing(frames):
    async def main():
        swarm, ann, bob = await pair()
        stream = await (await stranger(swarm)).open(BOB, TOPIC, 5)
        await stream.send(offered(bob), 5)
        Accept.parse(await stream.receive(5))
        for frame in frames:
            await stream.send(frame, 5)
        await asyncio.sleep(10)
        await stream.close()
        assert bob.gossip.free
        assert bob.gossip.decisions.known("peerStranger", 1 << 30) == "dropped"
        assert outcomes(bob) == {"failed": 1}
        assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED
        await swarm.settle()
        assert drift(swarm.peers) < LAW

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        [Accept(round=1, nbytes=PAYLOAD + 1).frame()],
        [Accept(round=1, nbytes=PAYLOAD).frame(), Frame(Kind.PART, bytes(PAYLOAD + 1))],
        [
            Accept(round=1, nbytes=PAYLOAD).frame(),
            Frame(Kind.PART, np.full(8, np.nan).tobytes()),
        ],
        [Accept(round=1, nbytes=PAYLOAD).frame(), Have(round=1).frame()],
        [Frame(Kind.PART, bytes(PAYLOAD))],
        [Frame(Kind.ACCEPT, b"\xc1")],
    ],
)
def test_a_faulty_acceptor_changes_nothing(answer):
    async def main():
        swarm, ann, _ = await pair()

        async def serve(stream):
            await stream.receive(5)
            for frame in answer:
                await stream.send(frame, 5)
            await asyncio.sleep(10)

        await (await stranger(swarm)).serve(TOPIC, serve)
        before = ann.gossip.window.number
        assert await ann.gossip.offer("peerStranger", "train", 0) is End.FAILED
        assert ann.gossip.free
        assert ann.gossip.window.number == before
        assert outcomes(ann) == {"failed": 1}
        assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED

    run(main())


def test_a_second_stream_for_a_round_is_busy_first_and_decided_later():
    async def main():
        swarm, _, bob = await pair()
        door = await stranger(swarm)

        async def offer():
            stream = await door.open(BOB, TOPIC, 5)
            await stream.send(offered(bob), 5)
            return stream, await stream.receive(5)

        first, answer = await offer()
        assert answer.kind is Kind.ACCEPT
        second, answer = await offer()
        assert Decline.parse(answer).reason == "busy"
        await first.send(Frame(Kind.PART, bytes(PAYLOAD)), 5)
        await first.send(Have(round=1 << 30).frame(), 5)
        await first.receive(5)
        assert (await first.receive(5)).kind is Kind.HAVE
        third, answer = await offer()
        assert Decline.parse(answer).reason == "applied"
        for stream in (first, second, third):
            await stream.close()
        await asyncio.sleep(2)
        assert outcomes(bob) == {"ok": 1}

    run(main())


def test_a_round_that_was_asked_for_while_its_stream_is_open_is_not_applied():
    async def main():
        swarm, _, bob = await pair()
        door = await stranger(swarm)
        stream = await door.open(BOB, TOPIC, 5)
        await stream.send(offered(bob), 5)
        await stream.receive(5)
        question = await door.open(BOB, "ask", 5)
        await question.send(Ask(rounds=(1 << 30, 5)).frame(), 5)
        assert Tell.parse(await question.receive(5)).outcomes == ("dropped", "dropped")
        await question.close()
        await stream.send(Frame(Kind.PART, bytes(PAYLOAD)), 5)
        await stream.send(Have(round=1 << 30).frame(), 5)
        await stream.receive(5)
        with pytest.raises(LinkError):
            await stream.receive(5)
        await asyncio.sleep(2)
        assert outcomes(bob) == {"failed": 1}
        assert drift([bob]) < LAW

    run(main())


def test_two_calls_that_cross_make_one_meeting():
    async def main():
        swarm, ann, bob = await pair(link=SLOW)
        ann.gossip.paused = False
        offers = ann.gossip.offer(BOB, "train", 0), bob.gossip.offer(ANN, "train", 0)
        ends = await asyncio.gather(*offers)
        assert ends == [End.APPLIED, End.DECLINED]
        await swarm.settle()
        assert one_sided(swarm.peers) == []
        assert drift(swarm.peers) < LAW

    run(main())


def test_nobody_is_suspected_for_a_snapshot_that_oneself_lacks():
    """1. Bob calls Ann; 2. meanwhile Bob's snapshot goes to Coe; 3. Ann accepts Bob."""

    async def main():
        swarm, ann, bob = await pair(link=SLOW)
        ann.gossip.paused = False
        call = asyncio.create_task(bob.gossip.offer(ANN, "train", 0))
        await asyncio.sleep(0.1)
        taken = bob.desk.take()
        assert await call is End.FAILED
        assert ANN in bob.membership.alive(clock.now())
        bob.desk.put_back(taken)
        await swarm.settle()

    run(main())


@pytest.mark.parametrize("at_s", [0.5, 2.0, 2.9, 3.0])
def test_a_meeting_that_outlives_the_phase_comes_to_nothing(at_s):
    async def main():
        swarm, ann, bob = await pair(link=SLOW)
        meeting = asyncio.create_task(ann.gossip.offer(BOB, "train", 0))
        await asyncio.sleep(at_s)
        ann.subject.layout = "c0"
        assert await meeting is End.FAILED
        await swarm.settle()
        assert outcomes(bob) == {"failed": 1}
        assert BOB in ann.membership.alive(clock.now())

    run(main())


def spoil(subject, error):
    """From now on whatever a partner sends to ``subject`` raises ``error``."""
    sound = subject.blend

    def take(part, payloads):
        raise error

    def blend(*arguments):
        result = sound(*arguments)
        result.take = take
        return result

    subject.blend = blend


def test_an_error_of_ours_is_raised_and_leaves_the_peer_free():
    async def main():
        swarm, ann, _ = await pair()

        kept = ann.subject.blend
        spoil(ann.subject, ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await ann.gossip.offer(BOB, "train", 0)
        assert ann.gossip.free
        ann.subject.blend = kept
        await asyncio.sleep(10)
        assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED
        await swarm.settle()
        assert drift(swarm.peers) < LAW

    run(main())


def test_a_payload_that_is_unsound_on_one_side_is_applied_on_none():
    async def main():
        for who in (0, 1):
            swarm, ann, _ = await pair()
            spoil(swarm.peers[who].subject, PayloadError("not finite"))
            end = await ann.gossip.offer(BOB, "train", 0)
            assert end in (End.FAILED, End.PENDING)
            await ann.gossip.questions.ask(BOB)
            await swarm.settle()
            assert drift(swarm.peers) < LAW
            assert outcomes(*swarm.peers)["ok"] == 0

    run(main())


def test_the_deadline_of_a_partner_follows_its_slowest_frame():
    """Many quick PARTs must not hide the seconds that a partner needs to check a payload."""

    async def main():
        swarm, ann, bob = await pair()

        async def slowly(function, *arguments):
            await asyncio.sleep(3.0)
            return function(*arguments)

        object.__setattr__(bob.around, "offload", slowly)
        bob.subject.quick = False
        for _ in range(8):
            assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED
            await asyncio.sleep(5)
        assert ann.around.links.deadline_s(BOB) > 6
        await swarm.settle()

    run(main())


# ---- leftovers ------------------------------------------------------------------------------


def measure(thing, seen):
    """How many things are held by ``thing``, as deep as the project's own objects go."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        return len(thing) + sum(measure(value, seen) for value in thing.values())
    if isinstance(thing, list | tuple | set | deque):
        return len(thing) + sum(measure(value, seen) for value in list(thing))
    if isinstance(thing, asyncio.Queue):
        return thing.qsize()
    if type(thing).__module__.startswith("swarmnet."):
        fields = getattr(thing, "__dict__", {})
        return sum(measure(value, seen) for name, value in fields.items() if name != "events")
    return 0


def test_nothing_grows_over_two_thousand_exchanges_of_which_half_fail(monkeypatch):
    monkeypatch.setattr(ledger, "MEMORY", 32)
    monkeypatch.setattr(settling, "KEPT_ROUNDS", 16)

    async def main():
        swarm = await Swarm(4, seed=5).start()
        dice = random.Random(5)
        sizes, tasks = [], []

        async def storm(until):
            while sum(outcomes(*swarm.peers).values()) < until:
                if len(swarm.network.cuts) < 6:
                    for opener in NAMES[:4]:
                        sender = dice.choice([opener, *NAMES[:4]])
                        swarm.network.cuts.append(Cut(opener, sender, dice.randrange(700)))
                await asyncio.sleep(0.5)
                swarm.network.cuts[:] = [cut for cut in swarm.network.cuts if not cut.used]

        for until in (1000, 1500, 2000):  # by the first, all that is bounded is full
            await storm(until)
            sizes.append(sum(measure(peer, set()) for peer in swarm.peers))
            tasks.append(len(asyncio.all_tasks()))
        seen = outcomes(*swarm.peers)
        assert seen["failed"] + seen["pending"] > 0.3 * sum(seen.values()), seen
        assert max(sizes[1:]) < 1.1 * sizes[0]
        assert max(tasks) < 40
        await swarm.settle()
        assert len(asyncio.all_tasks()) == 1 + 3 * 4
        given_up = sum(peer.gossip.pending.given_up for peer in swarm.peers)
        if given_up == 0:
            assert drift(swarm.peers) < LAW
            assert one_sided(swarm.peers) == []
        else:
            assert len(one_sided(swarm.peers)) <= given_up

    run(main())


def test_a_second_meeting_gets_a_buffer_of_its_own():
    buffers = meeting.ReceiveBuffer()
    first, second = buffers.lend(8), buffers.lend(8)
    assert first is not second
    buffers.give_back(second)
    assert buffers.lend(8) is second
    buffers.give_back(first)
    assert len(buffers.lend(16)) == 16


def test_simulations_repeat_themselves():
    async def main():
        swarm = await Swarm(4, seed=9).start()
        for i in range(20):
            swarm.network.cuts.append(Cut(NAMES[i % 4], NAMES[i // 4 % 4], 40 * i))
        await asyncio.sleep(60)
        return [(p.steps, p.subject.live.tolist(), p.events) for p in swarm.peers]

    assert run(main()) == run(main())
