"""Farewells in virtual time: what a leaver has not shared goes to one neighbour, exactly once."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from swarmnet.errors import MessageError, PayloadError
from swarmnet.exchange.farewell import MOST_IN_A_WINDOW
from swarmnet.exchange.pair import End, Heir, Leaver
from swarmnet.exchange.states import ENDS, HEIR, LEAVER, Event, State
from swarmnet.sim import clock
from swarmnet.sim.link import Link
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Accept, Decline, Have, Offer
from tests.unit.swarms import LAW, SLOW, Swarm, drift, one_sided

PART = Frame(Kind.PART, b"1234")
OFFER = Offer(round=7, phase="train", index=0, layout="ab", nbytes=8, farewell=True)
ACCEPT = Accept(round=7, nbytes=0)
HAVE = Have(round=7).frame()
THIN = Link(latency_s=0.2, bandwidth=1000.0)
"""A farewell takes about two seconds."""


def heir(granted=True):
    machine = Heir(OFFER, ACCEPT, lambda: granted)
    machine.start()
    return machine


def leaver():
    machine = Leaver(OFFER)
    machine.start()
    return machine


# ---- the machines ---------------------------------------------------------------------------


def test_the_heir_decides_and_only_then_does_the_leaver_know():
    giver, taker = leaver(), heir()
    giver.on_frame(ACCEPT.frame())
    taker.on_frame(PART)
    giver.all_out()
    assert giver.end is None
    taker.on_frame(PART)
    assert taker.end is None
    taker.verified()
    assert taker.end is End.APPLIED
    giver.on_frame(HAVE)
    assert giver.end is End.APPLIED


def test_a_leaver_is_unsure_from_its_last_part_on_and_not_before():
    early, late = leaver(), leaver()
    for machine in (early, late):
        machine.on_frame(ACCEPT.frame())
    late.all_out()
    early.lost("cut")
    late.lost("cut")
    assert (early.end, late.end) == (End.FAILED, End.PENDING)


def test_a_round_that_was_dropped_is_inherited_by_nobody():
    machine = heir(granted=False)
    machine.on_frame(PART)
    machine.on_frame(PART)
    machine.verified()
    assert machine.end is End.FAILED


def test_words_out_of_place_are_the_others_fault():
    with pytest.raises(MessageError, match="HAVE is not expected by the leaver while offered"):
        leaver().on_frame(HAVE)
    with pytest.raises(MessageError, match="announces a payload"):
        leaver().on_frame(Accept(round=7, nbytes=8).frame())
    giver = leaver()
    giver.on_frame(ACCEPT.frame())
    with pytest.raises(MessageError, match="HAVE is not expected by the leaver while giving"):
        giver.on_frame(HAVE)
    giver.all_out()
    with pytest.raises(MessageError, match="another round"):
        giver.on_frame(Have(round=8).frame())
    taker = heir()
    with pytest.raises(MessageError, match="HAVE is not expected by the heir"):
        taker.on_frame(HAVE)
    with pytest.raises(PayloadError, match="more payload"):
        taker.on_frame(Frame(Kind.PART, b"123456789"))


def test_every_row_of_both_tables_leads_to_an_end_and_none_out_of_it():
    for table in (LEAVER, HEIR):
        reached = {row.to for row in table.values()} | {State.NEW}
        assert {state for state, _ in table} == reached - ENDS.keys()
        waiting = {state for state, _ in table} - {State.DECIDING}
        assert all((state, Event.LOST) in table for state in waiting)


def test_a_declined_farewell_says_why():
    machine = leaver()
    machine.on_frame(Decline(reason="busy", retry_s=0.1).frame())
    assert (machine.end, machine.reason) == (End.DECLINED, "busy")


# ---- whole peers ----------------------------------------------------------------------------


async def standing(n=3, **options):
    """``n`` peers that train for a while and meet only when the test says so."""
    swarm = await Swarm(n, **options).stand()
    await asyncio.sleep(5.0)
    return swarm


def total(peers):
    """Sum of the replicas, less what training alone would have made of it."""
    return np.sum([p.subject.live - p.started - p.added for p in peers], axis=0)


def inherited(peer):
    return [event for event in peer.events if event.outcome == "inherited"]


def test_nothing_of_a_leavers_last_window_is_lost():
    """The sum over those who stay is what it would be, had the leaver's step been their own."""

    async def scenario():
        swarm = await standing(h=100)
        goer, *others = swarm.peers
        unshared = goer.subject.live - goer.subject.met
        before = total(others)
        said = await swarm.leave(0)
        await asyncio.sleep(3.0)
        assert said.outcome == "given"
        assert np.abs(unshared).min() > 0
        assert np.abs(total(others) - before - unshared).max() < LAW
        assert np.abs(goer.subject.live - goer.subject.met).max() < LAW
        [heir] = [peer for peer in others if inherited(peer)]
        assert heir.me == said.heir
        assert heir.gossip.settling.in_weights
        assert drift(swarm.peers) < LAW

    clock.run(scenario())


def test_an_heir_that_leaves_at_once_hands_it_all_on():
    async def scenario():
        swarm = await standing(h=100)
        first, second, third = swarm.peers
        first.window.history.append(second.me)
        assert (await swarm.leave(0)).heir == second.me
        assert (await swarm.leave(1)).heir == third.me
        await asyncio.sleep(3.0)
        grown = third.subject.live - third.started - third.added
        assert np.abs(grown - first.added - second.added).max() < LAW
        assert drift(swarm.peers) < LAW

    clock.run(scenario())


def test_what_was_shared_with_a_partner_is_not_handed_over_again():
    async def scenario():
        swarm = await standing(h=1)
        first, second, _ = swarm.peers
        assert await first.gossip.offer(second.me, "train", 0) is End.APPLIED
        await asyncio.sleep(0.5)
        first.settle()
        since = first.added.copy()
        said = await swarm.leave(0)
        await asyncio.sleep(3.0)
        assert np.abs(said.gone - (first.added - since)).max() < 10
        assert drift(swarm.peers) < LAW

    clock.run(scenario())


def test_who_is_busy_with_a_meeting_is_an_heir_all_the_same():
    async def scenario():
        swarm = await standing(h=2, link=SLOW)
        first, second, third = swarm.peers
        meeting = asyncio.create_task(second.gossip.offer(third.me, "train", 0))
        async with asyncio.timeout(10.0):
            while second.gossip._meeting is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        first.window.history.append(second.me)
        said = await first.leave(20.0)
        assert (said.outcome, said.heir) == ("given", second.me)
        assert await meeting is End.APPLIED
        await asyncio.sleep(5.0)
        assert inherited(second)
        assert drift(swarm.peers) < LAW

    clock.run(scenario())


def test_a_frozen_neighbour_does_not_use_up_the_time_of_the_others():
    async def scenario():
        swarm = await standing(h=100)
        first, second, third = swarm.peers
        first.window.history.append(second.me)
        swarm.freeze(1, 600.0)
        began = clock.now()
        said = await swarm.leave(0)
        assert (said.outcome, said.heir) == ("given", third.me)
        assert clock.now() - began < 5.0

    clock.run(scenario())


def test_with_nobody_there_the_work_stays_with_the_leaver():
    async def scenario():
        swarm = await standing(n=2, h=100)
        swarm.crash(1)
        began, kept = clock.now(), swarm.peers[0].subject.live.copy()
        said = await swarm.leave(0)
        assert said.outcome == "nobody"
        assert said.gone is None
        assert clock.now() - began <= 5.0 + 1e-6
        assert (swarm.peers[0].subject.live >= kept).any()

    clock.run(scenario())


def test_two_leavers_at_once_and_one_heir():
    async def scenario():
        swarm = await standing(h=100)
        said = await asyncio.gather(swarm.leave(0), swarm.leave(1))
        assert [each.outcome for each in said] == ["given", "given"]
        await asyncio.sleep(3.0)
        assert len(inherited(swarm.peers[2])) == 2
        assert drift(swarm.peers) < LAW

    clock.run(scenario())


def test_between_two_meetings_a_peer_is_the_heir_of_so_many_and_no_more():
    async def scenario():
        swarm = await standing(n=MOST_IN_A_WINDOW + 2, h=1000)
        *goers, heir = swarm.peers
        for number, goer in enumerate(goers):
            farewells = goer.gossip.farewells
            farewells._doors = replace(farewells._doors, heirs=lambda: [heir.me])
            said = await swarm.leave(number)
            assert said.outcome == ("given" if number < MOST_IN_A_WINDOW else "nobody")
        assert said.reason == "busy"
        await asyncio.sleep(3.0)
        assert len(inherited(heir)) == MOST_IN_A_WINDOW


def test_a_suspect_is_asked_when_nobody_else_is_left():
    async def scenario():
        swarm = await standing(n=2, h=100)
        first, second = swarm.peers
        first.membership.suspect(second.me, first.clock(), 600.0)
        assert (await swarm.leave(0)).outcome == "given"

    clock.run(scenario())

    clock.run(scenario())


@pytest.mark.parametrize("sender", [0, 1], ids=["leaver", "heir"])
def test_a_farewell_cut_after_any_byte_counts_once(sender):
    """Sure of nothing, the leaver asks; what was not decided goes to somebody else."""

    async def cut_after(nbytes):
        swarm = await standing(h=100)
        first, second, _ = swarm.peers
        first.window.history.append(second.me)
        swarm.cut(0, sender, nbytes)
        said = await swarm.leave(0)
        await asyncio.sleep(3.0)
        assert said.outcome == "given"
        assert sum(len(inherited(peer)) for peer in swarm.peers) == 1
        assert drift(swarm.peers) < LAW
        return said.heir == second.me

    async def scenario():
        """Whether the neighbour that was cut off had it all, for every byte."""
        return [await cut_after(nbytes) for nbytes in range(0, 600, 7)]

    had = clock.run(scenario())
    assert had == sorted(had)
    assert set(had) == {False, True}


@pytest.mark.parametrize("seed", range(8))
def test_a_storm_of_leavers_keeps_the_mean(seed):
    """Peers leave while everybody meets: no step is lost, and none is there twice."""

    async def scenario():
        swarm = Swarm(8, h=9, seed=seed, link=THIN if seed % 2 else None)
        await swarm.start()
        said = []

        async def leave(number, at):
            await asyncio.sleep(at)
            said.append(await swarm.peers[number].leave(15.0))
            swarm.crash(number)

        times = enumerate((20.3, 20.4, 31.7, 31.75, 47.0))
        leaving = [asyncio.create_task(leave(n, at + 0.37 * seed)) for n, at in times]
        await asyncio.gather(*leaving)
        await asyncio.sleep(20.0)
        stayed = swarm.peers[5:]
        await swarm.settle(stayed)
        for peer in swarm.peers:
            peer.settle()
        given = sum(len(inherited(peer)) for peer in swarm.peers)
        assert given == sum(each.outcome == "given" for each in said) > 0
        assert all(each.reason for each in said if each.outcome == "nobody")
        if not one_sided(swarm.peers):
            assert drift(swarm.peers) < LAW

    clock.run(scenario())
