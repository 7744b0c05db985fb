"""Whole peers in virtual time under scripted faults: the mean law and the absence of leftovers."""

import asyncio

import pytest

from swarmnet.exchange.links import FIRST_S
from swarmnet.exchange.pair import End
from swarmnet.sim import clock, vector
from swarmnet.sim.book import PhoneBook
from swarmnet.sim.network import Cut
from tests.unit.swarms import LAW, NAMES, SLOW, Swarm, drift, offset, one_sided, outcomes, pair

ANN, BOB, COE, DOT = NAMES[:4]
PAYLOAD = 64


@pytest.fixture
def small_parts(monkeypatch):
    """A payload of 64 bytes in three PART frames."""
    monkeypatch.setattr(vector, "PART_VALUES", 3)


def run(main):
    return clock.run(main)


# ---- the mean law ---------------------------------------------------------------------------


def test_calm_swarm_keeps_the_mean_and_everybody_meets():
    async def main():
        swarm = await Swarm(4).start()
        await asyncio.sleep(100)
        await swarm.settle()
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []
        seen = outcomes(*swarm.peers)
        assert set(seen) == {"ok", "solo"}
        assert seen["solo"] < 0.05 * seen["ok"]
        assert min(outcomes(peer)["ok"] for peer in swarm.peers) > 50

    run(main())


async def one_cut(sender, after_bytes):
    """Ann offers to Bob on a stream that is cut once; returns how it ended for her."""
    swarm, ann, bob = await pair()
    swarm.network.cuts.append(Cut(ANN, sender, after_bytes))
    end = await ann.gossip.offer(BOB, "train", 0)
    bob.gossip.paused = True
    await asyncio.sleep(10)
    applied = outcomes(bob)["ok"]
    assert (end is End.APPLIED) <= applied
    if end is End.PENDING:
        assert await ann.gossip.questions.ask(BOB)
    await asyncio.sleep(3)
    assert outcomes(ann)["ok"] + outcomes(ann)["late"] == applied
    assert drift(swarm.peers) < LAW
    assert all(peer.gossip.free for peer in swarm.peers)
    assert not any(swarm.network._streams.values())
    assert not swarm.network.bugs
    sent = {event.partner: event.bytes_sent for event in ann.events + bob.events}
    return end, applied, sent


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("sender", [ANN, BOB])
def test_a_cut_after_every_byte_of_a_meeting(sender):
    whole = run(one_cut(sender, 10**9))
    assert whole[:2] == (End.APPLIED, 1)
    nbytes = whole[2][BOB if sender == ANN else ANN]
    assert nbytes > PAYLOAD + 4 * 12
    ends = [run(one_cut(sender, after))[:2] for after in range(nbytes + 1)]
    assert ends[-1] == (End.APPLIED, 1)
    assert ends[0] == (End.FAILED, 0)
    if sender == ANN:
        assert {end for end, _ in ends} == {End.FAILED, End.PENDING, End.APPLIED}
        assert (End.PENDING, 0) in ends
    else:
        assert (End.PENDING, 1) in ends


# ---- freeze ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at_s", [0.0, 0.3, 0.8, 1.3, 1.8, 2.3, 2.8, 3.3, 3.8])
@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("who", [0, 1])
def test_a_freeze_in_every_phase(who, longer, at_s):
    async def main():
        swarm, ann, _ = await pair(link=SLOW)
        meeting = asyncio.create_task(ann.gossip.offer(BOB, "train", 0))
        await asyncio.sleep(at_s)
        swarm.network.freeze(NAMES[who], 4 * FIRST_S if longer else FIRST_S / 3)
        end = await meeting
        steps = [peer.steps for peer in swarm.peers]
        await asyncio.sleep(10 * FIRST_S)
        if end is End.PENDING:
            assert await ann.gossip.questions.ask(BOB)
        await swarm.settle()
        if not longer:
            assert end is End.APPLIED
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []
        other = swarm.peers[1 - who]
        assert other.steps - steps[1 - who] > 0.8 * 10 * FIRST_S

    run(main())


def test_a_frozen_partner_never_stalls_the_steps_or_meetings_of_others():
    async def main():
        swarm = await Swarm(4).start()
        await asyncio.sleep(20)
        swarm.network.freeze(DOT, 60)
        before = [peer.steps for peer in swarm.peers]
        met = [outcomes(peer)["ok"] for peer in swarm.peers]
        await asyncio.sleep(60)
        for i, peer in enumerate(swarm.peers[:3]):
            assert peer.steps - before[i] > 50
            assert outcomes(peer)["ok"] - met[i] > 15
        await swarm.settle()
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []

    run(main())


# ---- crash, restart -------------------------------------------------------------------------


@pytest.mark.parametrize("at_s", [0.1, 0.5, 1.0, 1.5, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0])
@pytest.mark.parametrize("who", [0, 1])
def test_a_crash_in_every_phase_leaves_the_survivors_exact(who, at_s):
    async def main():
        swarm = Swarm(4, h=4, link=SLOW)
        await swarm.start()
        await asyncio.sleep(3.0)
        ann = swarm.peers[0]
        meeting = asyncio.create_task(ann.gossip.offer(BOB, "train", 0))
        swarm.network.own(ANN, meeting)
        await asyncio.sleep(at_s)
        dead = swarm.peers[who]
        swarm.network.crash(dead.me)
        survivors = [peer for peer in swarm.peers if peer is not dead]
        await asyncio.sleep(25)
        for peer in survivors:
            assert peer.gossip._meeting is None or peer.gossip._meeting.partner != dead.me
            assert peer.steps > 20
        await swarm.settle(survivors, calm_s=60)
        assert one_sided(survivors) == []
        base = offset(survivors)
        for peer in survivors:
            peer.gossip.paused = False
        await asyncio.sleep(50)
        await swarm.settle(survivors)
        assert drift(survivors, base) < LAW
        assert sum(peer.gossip.pending.given_up for peer in survivors) == 0

    run(main())


@pytest.mark.parametrize("at_s", [0.5, 1.5, 2.5, 3.0, 3.5])
@pytest.mark.parametrize("who", [0, 1])
def test_a_restart_under_the_same_id_is_a_new_partner(who, at_s):
    async def main():
        swarm, ann, _ = await pair(link=SLOW)
        meeting = asyncio.create_task(ann.gossip.offer(BOB, "train", 0))
        swarm.network.own(ANN, meeting)
        await asyncio.sleep(at_s)
        old = swarm.peers[who]
        swarm.network.crash(old.me)
        await asyncio.sleep(2.0)
        new = await swarm.restart(who)
        assert new.status().incarnation > old.status().incarnation
        swarm.roam()
        await swarm.settle()
        base = offset(swarm.peers)
        assert one_sided([new]) == []
        new.events.clear()
        swarm.resume()
        await asyncio.sleep(40)
        await swarm.settle()
        assert drift(swarm.peers, base) < LAW
        assert outcomes(new)["ok"] > 3
        rounds = [event.round for event in new.events if event.partner == old.me]
        assert len(rounds) == len(set(rounds))

    run(main())


def test_a_cancelled_offer_leaves_nothing_marked_busy():
    async def main():
        for after_s in (0.1, 0.5, 1.0, 2.0, 2.6, 3.0, 3.3):
            swarm, ann, _ = await pair(link=SLOW)
            meeting = asyncio.create_task(ann.gossip.offer(BOB, "train", 0))
            await asyncio.sleep(after_s)
            meeting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await meeting
            assert ann.gossip.free
            await asyncio.sleep(10)
            await ann.gossip.questions.ask(BOB)
            await swarm.settle()
            assert drift(swarm.peers) < LAW
            assert one_sided(swarm.peers) == []

    run(main())


# ---- partition, absence ---------------------------------------------------------------------


@pytest.mark.parametrize("for_s", [5.0, 40.0])
def test_partition_and_heal(for_s):
    async def main():
        swarm = await Swarm(4, h=2, link=SLOW).start()
        for start in range(3):
            await asyncio.sleep(20 + 1.3 * start)
            walls = [(a, b) for a in (ANN, BOB) for b in (COE, DOT)]
            for a, b in walls:
                swarm.network.partition(a, b)
            await asyncio.sleep(for_s)
            for a, b in walls:
                swarm.network.heal(a, b)
        await swarm.settle()
        assert sum(peer.gossip.pending.given_up for peer in swarm.peers) == 0
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []

    run(main())


def test_a_question_outlives_the_silence_of_its_partner():
    """Bob applied, the answer was lost, and for longer than three renewals Ann hears nothing."""

    async def main():
        swarm, ann, bob = await pair()
        for after in range(300, 100, -1):
            swarm.network.cuts[:] = [Cut(ANN, BOB, after)]
            if await ann.gossip.offer(BOB, "train", 0) is End.PENDING:
                break
            await asyncio.sleep(3)
        assert len(ann.gossip.pending) == 1
        bob._book = PhoneBook()
        swarm.network.partition(ANN, BOB)
        swarm.roam()
        await asyncio.sleep(4 * swarm.options.renew_s)
        assert ann.membership.is_dead(BOB, clock.now())
        assert len(ann.gossip.pending) == 1
        bob._book = swarm.book
        swarm.network.heal(ANN, BOB)
        await swarm.settle()
        assert outcomes(ann)["late"] == 1
        assert drift(swarm.peers) < LAW

    run(main())


def test_alone_there_are_only_solo_windows():
    async def main():
        swarm = await Swarm(1, h=3).start()
        await asyncio.sleep(60)
        await swarm.settle()
        assert set(outcomes(*swarm.peers)) == {"solo"}
        assert drift(swarm.peers) < LAW

    run(main())


def test_when_everybody_else_is_gone_steps_go_on_alone():
    async def main():
        swarm = await Swarm(3).start()
        await asyncio.sleep(10)
        swarm.network.crash(BOB)
        swarm.network.crash(COE)
        ann = swarm.peers[0]
        await asyncio.sleep(20)
        steps = ann.steps
        ann.events.clear()
        await asyncio.sleep(50)
        assert ann.steps - steps > 40
        assert set(outcomes(ann)) == {"solo"}
        assert ann.gossip.free

    run(main())


@pytest.mark.parametrize("n", [3, 5, 7])
def test_an_odd_number_of_peers_leaves_nobody_out(n):
    async def main():
        swarm = await Swarm(n, h=2, seed=n).start()
        await asyncio.sleep(120)
        await swarm.settle()
        assert drift(swarm.peers) < LAW
        assert min(outcomes(peer)["ok"] for peer in swarm.peers) > 15

    run(main())
