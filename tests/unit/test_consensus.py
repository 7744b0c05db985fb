"""The end of a run: scheduled averaging makes the replicas one, whoever is lost on the way."""

import asyncio

import numpy as np
import pytest

from swarmnet.exchange.agreement import CHECKS
from swarmnet.exchange.consensus import ROUND_PATIENCE_S, Plan
from swarmnet.exchange.driver import TOPIC
from swarmnet.sim import clock
from swarmnet.sim.network import Cut, Link
from swarmnet.sim.vector import disagreement
from tests.unit.swarms import LAW, NAMES, Swarm, choice, drift, offset, one_sided, outcomes

SEED = 3


def plan(budget_s=30.0, matching="hypercube", bound=0.01):
    return Plan(choice("matching", matching), SEED, budget_s, bound)


def spread(peers):
    return disagreement([peer.subject.live for peer in peers])


def finish(swarm, peer, the_plan):
    """A task that dies with its peer."""
    task = asyncio.create_task(peer.finish(the_plan))
    swarm.network.own(peer.me, task)
    return task


def met_first(peer, rounds=2):
    return [e.partner for e in peer.events if e.phase == "consensus"][:rounds]


def scheduled(swarm, rounds):
    matching, ids = choice("matching", "hypercube"), [peer.me for peer in swarm.peers]
    return [[matching.partner(me, ids, index, SEED) for index in range(rounds)] for me in ids]


async def leave_open(swarm, ann, bob):
    """A meeting that Bob has applied and Ann has to ask about."""
    for after in range(700, 0, -5):
        swarm.network.cuts[:] = [Cut(ann.me, bob.me, after)]
        await ann.gossip.offer(bob.me, "train", 0)
        await asyncio.sleep(3)
        if outcomes(bob)["ok"] > outcomes(ann)["ok"]:
            break
    assert len(ann.gossip.pending) == 1


async def trained(n, seconds=20, **options):
    swarm = await Swarm(n, **options).start()
    await asyncio.sleep(seconds)
    return swarm


@pytest.mark.parametrize("n", [2, 4, 8])
def test_a_power_of_two_ends_with_the_exact_mean(n):
    async def main():
        swarm = await trained(n, seed=n)
        held = await asyncio.gather(*(p.finish(plan()) for p in swarm.peers))
        await asyncio.sleep(1)
        least = n.bit_length() - 1 + min(CHECKS, n - 1)
        assert least <= min(held) <= max(held) <= least + n
        assert all(peer.gossip.agreement.calm for peer in swarm.peers)
        assert spread(swarm.peers) < LAW
        assert drift(swarm.peers) < LAW
        assert all(peer.gossip.free for peer in swarm.peers)
        assert not any(swarm.network._streams.values())

    clock.run(main())


@pytest.mark.parametrize("n", [3, 5, 6])
def test_other_numbers_end_close_together(n):
    async def main():
        swarm = await trained(n, seed=n)
        before = spread(swarm.peers)
        await asyncio.gather(*(p.finish(plan(budget_s=60)) for p in swarm.peers))
        await asyncio.sleep(1)
        assert spread(swarm.peers) < 0.05 * before
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []

    clock.run(main())


def test_alone_the_phase_is_over_at_once():
    async def main():
        swarm = await trained(1)
        start = clock.now()
        assert await swarm.peers[0].finish(plan()) == 0
        assert clock.now() - start < 1

    clock.run(main())


def test_with_a_matching_of_nobody_the_phase_holds_no_meeting():
    async def main():
        swarm = await trained(3)
        the_plan = plan(matching="solo")
        assert await asyncio.gather(*(p.finish(the_plan) for p in swarm.peers)) == [0, 0, 0]

    clock.run(main())


@pytest.mark.parametrize("late_s", [1.0, 5.0, 12.0])
def test_a_late_finisher_within_half_of_the_budget_costs_nothing(late_s):
    async def main():
        swarm = await trained(4)
        tasks = [finish(swarm, peer, plan()) for peer in swarm.peers[:3]]
        await asyncio.sleep(late_s)
        tasks.append(finish(swarm, swarm.peers[3], plan()))
        await asyncio.gather(*tasks)
        assert [met_first(peer) for peer in swarm.peers] == scheduled(swarm, 2)
        await asyncio.sleep(1)
        assert spread(swarm.peers) < LAW
        assert drift(swarm.peers) < LAW

    clock.run(main())


def test_one_that_never_finishes_does_not_hold_the_others_beyond_the_budget():
    async def main():
        swarm = await trained(4)
        start = clock.now()
        before = spread(swarm.peers[:3])
        await asyncio.gather(*(p.finish(plan(budget_s=20)) for p in swarm.peers[:3]))
        assert clock.now() - start < 20 + 10
        await asyncio.sleep(1)
        assert spread(swarm.peers[:3]) < before
        assert drift(swarm.peers) < LAW
        assert all(peer.gossip.free for peer in swarm.peers)

    clock.run(main())


@pytest.mark.parametrize("who", [0, 3, 5, 7])
@pytest.mark.parametrize("at_s", [0.1, 2.25, 2.6])
def test_a_peer_that_dies_in_the_phase_costs_its_own_rounds_only(who, at_s):
    """Seven survivors: all end within the budget, and those that still meet come closer."""

    async def main():
        swarm = await trained(8, link=Link(0.05, 2000.0))
        before = spread(swarm.peers)
        start = clock.now()
        tasks = [finish(swarm, peer, plan(budget_s=40)) for peer in swarm.peers]
        await asyncio.sleep(at_s)
        dead = swarm.peers[who]
        swarm.network.crash(dead.me)
        survivors = [peer for peer in swarm.peers if peer is not dead]
        held = await asyncio.gather(*(t for t in tasks if t is not tasks[who]))
        assert clock.now() - start < 45
        await asyncio.sleep(10)
        assert min(held) >= 2
        assert spread(survivors) < 0.75 * before
        assert one_sided(survivors) == []
        assert all(peer.gossip.free for peer in survivors)
        assert swarm.network.bugs == []

    clock.run(main())


def test_a_partner_that_is_frozen_from_the_first_round_on_spoils_the_schedule_only():
    """Whoever waits in vain roams, and meets those that it would have met, and others."""

    async def main():
        swarm = await trained(8)
        dead = swarm.peers[5]
        before = spread(swarm.peers)
        start = clock.now()
        tasks = [finish(swarm, p, plan(budget_s=60)) for p in swarm.peers if p is not dead]
        dead.state = dead.gossip.stance = "consensus"
        dead._publish()
        await asyncio.sleep(0.5)
        swarm.network.freeze(dead.me, 1000)
        await asyncio.gather(*tasks)
        survivors = [peer for peer in swarm.peers if peer is not dead]
        assert clock.now() - start < 45
        assert all(peer.gossip.agreement.calm for peer in survivors)
        assert spread(survivors) < 0.01 * before
        assert one_sided(survivors) == []

    clock.run(main())


@pytest.mark.parametrize("after_bytes", range(0, 400, 25))
@pytest.mark.parametrize("sender", [0, 1])
def test_a_cut_in_the_phase_costs_a_try_and_never_the_exact_mean(sender, after_bytes):
    async def main():
        swarm = await trained(2)
        for peer in swarm.peers:
            peer.gossip.paused = True
        await asyncio.sleep(3)
        swarm.network.cuts.append(Cut(NAMES[0], NAMES[sender], after_bytes, TOPIC))
        await asyncio.gather(*(p.finish(plan()) for p in swarm.peers))
        await asyncio.sleep(1)
        assert spread(swarm.peers) < LAW
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []

    clock.run(main())


def test_a_suspect_is_still_on_the_roster():
    """Suspicion is private: with it in the roster, the peers would follow different schedules."""

    async def main():
        swarm = await trained(4)
        for peer in swarm.peers:
            peer.gossip.paused = True
        await asyncio.sleep(3)
        first, second = swarm.peers[:2]
        for _ in range(6):
            first.membership.suspect(second.me, clock.now())
        assert second.me not in first.membership.alive(clock.now())
        await asyncio.gather(*(p.finish(plan()) for p in swarm.peers))
        assert [met_first(peer) for peer in swarm.peers] == scheduled(swarm, 2)
        await asyncio.sleep(1)
        assert spread(swarm.peers) < LAW

    clock.run(main())


def test_questions_left_over_from_training_are_settled_first():
    async def main():
        swarm = await Swarm(2, seed=1).stand()
        await asyncio.sleep(3)
        ann, bob = swarm.peers
        await leave_open(swarm, ann, bob)
        await asyncio.gather(*(p.finish(plan()) for p in swarm.peers))
        await asyncio.sleep(1)
        assert len(ann.gossip.pending) == 0
        assert drift(swarm.peers) < LAW
        assert spread(swarm.peers) < LAW

    clock.run(main())


def test_a_question_to_somebody_who_is_not_met_in_the_phase_is_settled_too():
    async def main():
        swarm = await Swarm(4, seed=2).stand()
        await asyncio.sleep(3)
        ann, ids = swarm.peers[0], [peer.me for peer in swarm.peers]
        matching = choice("matching", "hypercube")
        met = {matching.partner(ann.me, ids, index, SEED) for index in range(2)}
        (other,) = [peer for peer in swarm.peers[1:] if peer.me not in met]
        await leave_open(swarm, ann, other)
        await asyncio.gather(*(p.finish(plan()) for p in swarm.peers))
        await asyncio.sleep(1)
        assert len(ann.gossip.pending) == 0
        assert drift(swarm.peers) < LAW
        assert spread(swarm.peers) < LAW

    clock.run(main())


def test_a_meeting_of_an_earlier_round_does_not_count_for_a_later_one():
    """1. A round-0 meeting begins late; 2. its time is up; 3. it still ends as round 0."""

    async def main():
        async def slowly(function, *arguments):
            await asyncio.sleep(5.6)
            return function(*arguments)

        swarm = await trained(4, h=100)
        for peer in swarm.peers:
            object.__setattr__(peer.around, "offload", slowly)
            peer.subject.quick = False
        held = await asyncio.gather(*(p.finish(plan(budget_s=120)) for p in swarm.peers))
        await asyncio.sleep(1)
        met = [e for p in swarm.peers for e in p.events if e.phase == "consensus"]
        assert max(event.seconds for event in met) > ROUND_PATIENCE_S
        assert min(held) >= 2
        assert sum(held) == sum(event.outcome in ("ok", "late") for event in met)
        assert drift(swarm.peers) < LAW
        assert spread(swarm.peers) < LAW

    clock.run(main())


def test_everybody_leaves_the_phase_declining():
    async def main():
        swarm = await trained(2)
        await asyncio.gather(*(p.finish(plan()) for p in swarm.peers))
        await asyncio.sleep(1)
        ann, bob = swarm.peers
        assert (await ann.gossip.offer(bob.me, "consensus", 0)).value == "declined"

    clock.run(main())


def test_partners_are_met_in_the_order_of_the_schedule():
    async def main():
        swarm = await trained(4)
        await asyncio.gather(*(p.finish(plan()) for p in swarm.peers))
        await asyncio.sleep(1)
        assert [met_first(peer) for peer in swarm.peers] == scheduled(swarm, 2)

    clock.run(main())


def test_the_survivors_mean_moves_no_more_after_a_death():
    async def main():
        swarm = await trained(5)
        swarm.network.crash(NAMES[4])
        survivors = swarm.peers[:4]
        await swarm.settle(survivors)
        base = offset(survivors)
        await asyncio.gather(*(p.finish(plan(budget_s=60)) for p in survivors))
        await asyncio.sleep(1)
        assert drift(survivors, base) < LAW
        assert spread(survivors) < LAW
        assert np.isfinite(base).all()

    clock.run(main())
