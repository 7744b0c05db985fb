"""Random meetings of the consensus phase: until all are close, whatever happens, or time is up."""

import asyncio
import random
from dataclasses import replace

import pytest

from swarmnet.exchange.consensus import ROUND_PATIENCE_S
from swarmnet.sim import clock
from swarmnet.sim.network import Cut, Link
from tests.unit.swarms import LAW, NAMES, drift, offset, one_sided
from tests.unit.test_consensus import finish, plan, spread, trained

BOUND = 0.01
END_OF_A_MEETING_S = 10.0


def calm(peers):
    return [peer.gossip.agreement.calm for peer in peers]


async def over(tasks):
    """Seconds from now until all are done, and what each returned."""
    start = clock.now()
    held = await asyncio.gather(*tasks)
    took = clock.now() - start
    await asyncio.sleep(1)
    return took, held


def in_phase(peer):
    """So far that others count on it, and yet it does nothing."""
    peer.state = peer.gossip.stance = "consensus"
    peer._publish()


@pytest.mark.parametrize("matching", ["hypercube", "random_pairs", "ring", "self_repellent"])
@pytest.mark.parametrize("n", [2, 5, 7, 10])
def test_everybody_ends_below_the_bound_and_the_mean_stays(n, matching):
    async def main():
        swarm = await trained(n, seed=n)
        before = spread(swarm.peers)
        took, _ = await over([finish(swarm, p, plan(matching=matching)) for p in swarm.peers])
        assert calm(swarm.peers) == [True] * n
        assert spread(swarm.peers) < BOUND * before
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []
        assert took < 10

    clock.run(main())


@pytest.mark.parametrize("seed", range(6))
def test_seven_with_a_crash_on_a_lossy_network(seed):
    async def main():
        dice = random.Random(seed)
        swarm = await trained(7, seed=seed, link=Link(0.05, 20_000.0))
        before = spread(swarm.peers)
        tasks = [finish(swarm, p, plan(budget_s=60)) for p in swarm.peers]
        swarm.network.cuts += [
            Cut(opener, dice.choice([opener, other]), dice.randrange(500))
            for opener, other in (dice.sample(NAMES[:7], 2) for _ in range(30))
        ]
        await asyncio.sleep(dice.uniform(0.5, 4.0))
        dead = dice.randrange(7)
        swarm.network.crash(NAMES[dead])
        survivors = [p for p in swarm.peers if p.me != NAMES[dead]]
        took, _ = await over([task for i, task in enumerate(tasks) if i != dead])
        assert took < 60 + END_OF_A_MEETING_S
        assert calm(survivors) == [True] * 6
        assert spread(survivors) < BOUND * before
        assert one_sided(survivors) == []
        assert all(peer.gossip.free for peer in survivors)
        assert swarm.network.bugs == []

    clock.run(main())


@pytest.mark.parametrize("seed", range(4))
def test_cuts_alone_leave_the_mean_where_it_was(seed):
    async def main():
        dice = random.Random(seed)
        swarm = await trained(6, seed=seed)
        await swarm.settle()
        before, base = spread(swarm.peers), offset(swarm.peers)
        swarm.network.cuts += [
            Cut(opener, dice.choice([opener, other]), dice.randrange(700))
            for opener, other in (dice.sample(NAMES[:6], 2) for _ in range(40))
        ]
        await over([finish(swarm, p, plan(budget_s=60)) for p in swarm.peers])
        assert [len(peer.gossip.pending) for peer in swarm.peers] == [0] * 6
        assert spread(swarm.peers) < BOUND * before
        assert drift(swarm.peers, base) < LAW
        assert one_sided(swarm.peers) == []

    clock.run(main())


def test_views_that_differ_spoil_the_schedule_and_not_the_result():
    """Two of five take another for a visitor: not all compute the same rounds."""

    async def main():
        swarm = await trained(5)
        before = spread(swarm.peers)
        for a, b in [(0, 1), (2, 3)]:
            seen = swarm.peers[b].status()
            visitor = replace(seen, counter=seen.counter + 1000, role="export")
            swarm.peers[a].membership.observe(NAMES[b], visitor, clock.now())
        took, _ = await over([finish(swarm, p, plan()) for p in swarm.peers])
        assert took < 15
        assert spread(swarm.peers) < BOUND * before
        assert drift(swarm.peers) < LAW

    clock.run(main())


@pytest.mark.parametrize("late_s", [0.3, 2.0, 3.5, 4.5])
def test_who_comes_after_heads_were_counted_is_not_left_alone(late_s):
    """Nobody has read of the newcomer; it knows the others, and calls."""

    async def main():
        swarm = await trained(4, link=Link(0.05, 50_000.0))
        newcomer = swarm.peer(4)
        await newcomer.start()
        newcomer._publish = lambda: None
        newcomer.gossip.paused = True
        swarm.book.statuses.pop(newcomer.me, None)
        before = spread([*swarm.peers, newcomer])
        await asyncio.sleep(4.0)
        assert all(newcomer.me not in peer.membership._members for peer in swarm.peers)
        tasks = [finish(swarm, p, plan()) for p in swarm.peers]
        await asyncio.sleep(late_s)
        tasks.append(finish(swarm, newcomer, plan()))
        took, _ = await over(tasks)
        everybody = [*swarm.peers, newcomer]
        assert took < 14
        assert calm(everybody) == [True] * 5
        assert spread(everybody) < BOUND * before

    clock.run(main())


def test_who_comes_when_all_have_left_ends_at_once():
    async def main():
        swarm = await trained(3)
        await over([finish(swarm, p, plan()) for p in swarm.peers[:2]])
        for peer in swarm.peers[:2]:
            peer.state = "serving"
            peer.gossip.stance = "leaving"
        await asyncio.sleep(3)
        took, held = await over([finish(swarm, swarm.peers[2], plan())])
        assert held == [0]
        assert took < ROUND_PATIENCE_S

    clock.run(main())


@pytest.mark.parametrize("budget_s", [4.0, 10.0])
def test_the_budget_ends_the_phase_for_everybody(budget_s):
    """A bound of zero is never reached by seven on links that take seconds for a meeting."""

    async def main():
        swarm = await trained(7, h=30, link=Link(0.2, 2_000.0))
        before = spread(swarm.peers)
        endless = plan(budget_s=budget_s, bound=0.0)
        took, _ = await over([finish(swarm, p, endless) for p in swarm.peers])
        assert took < budget_s + END_OF_A_MEETING_S
        assert calm(swarm.peers) == [False] * 7
        assert spread(swarm.peers) < before
        assert drift(swarm.peers) < LAW
        assert all(peer.gossip.free for peer in swarm.peers)

    clock.run(main())


def test_a_calm_peer_waits_for_one_that_is_held_up():
    """Two thirds of the swarm are one; the last one is frozen for longer than they need."""

    async def main():
        swarm = await trained(6)
        before = spread(swarm.peers)
        late = swarm.peers[2]
        tasks = [finish(swarm, p, plan(budget_s=60)) for p in swarm.peers]
        await asyncio.sleep(2.2)
        swarm.network.freeze(late.me, 4.0)
        await over(tasks)
        assert spread(swarm.peers) < BOUND * before
        assert drift(swarm.peers) < LAW

    clock.run(main())


def test_one_that_answers_nobody_is_given_up():
    async def main():
        swarm = await trained(4)
        silent = swarm.peers[3]
        in_phase(silent)
        swarm.network.freeze(silent.me, 1000)
        took, _ = await over([finish(swarm, p, plan(budget_s=60)) for p in swarm.peers[:3]])
        assert took < 40
        assert calm(swarm.peers[:3]) == [True] * 3

    clock.run(main())
