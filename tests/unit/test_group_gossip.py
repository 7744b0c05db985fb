"""Whole peers whose matching makes groups: who calls, who waits, and what DiLoCo needs."""

import asyncio
import random
from collections import Counter

import numpy as np
import pytest

from swarmnet.sim import clock
from swarmnet.sim.network import Cut, Link
from swarmnet.sim.peer import SimOptions
from tests.unit.swarms import LAW, NAMES, Swarm, choice, drift, outcomes


def run(main):
    return clock.run(main)


class Groups(Swarm):
    """A swarm under a matching that makes groups."""

    def __init__(self, n, matching="everyone", h=5, seed=0, link=None, step_s=1.0, **options):
        super().__init__(0, h, seed, link, step_s)
        made = choice("matching", matching, **options)
        self.options = SimOptions(made, choice("cadence", "every_h", h=h), step_s=step_s)
        self.peers = [self.peer(i) for i in range(n)]


def groups_of(peers):
    """(leader, number) -> who applied it."""
    found = {}
    for peer in peers:
        for event in peer.events:
            if event.outcome in ("ok", "late"):
                found.setdefault((event.partner, event.round), set()).add(peer.me)
    return found


@pytest.mark.parametrize("n", [3, 4, 6, 9])
def test_everyone_meets_once_a_window(n):
    async def main():
        swarm = await Groups(n).start()
        await asyncio.sleep(100)
        await swarm.settle()
        assert drift(swarm.peers) < LAW
        tally = outcomes(*swarm.peers)
        met = groups_of(swarm.peers)
        whole = [members for members in met.values() if len(members) == n]
        assert len(whole) >= 12
        assert len(whole) > 0.9 * len(met)
        assert tally["failed"] + tally["solo"] <= 0.05 * tally["ok"]

    run(main())


@pytest.mark.parametrize("n", [3, 4, 6])
def test_after_a_round_of_everyone_all_replicas_are_identical(n):
    """DiLoCo's identity: with everybody alive the slow weights are the same after every round.

    Inner steps go on during a meeting, so what is compared is the snapshot with its correction.
    """

    async def main():
        swarm = Groups(n, h=4)
        slow = {peer.me: [] for peer in swarm.peers}
        for peer in swarm.peers:
            record(peer.subject, slow[peer.me])
        await swarm.start()
        await asyncio.sleep(80)
        await swarm.settle()
        rounds = {}
        for peer in swarm.peers:
            met = [event for event in peer.events if event.outcome == "ok"]
            assert len(met) == len(slow[peer.me]) >= 10
            for event, weights in zip(met, slow[peer.me], strict=True):
                rounds.setdefault((event.partner, event.round), []).append(weights)
        for weights in rounds.values():
            assert len(weights) == n
            assert max(np.abs(one - weights[0]).max() for one in weights) < LAW

    run(main())


def record(subject, slow):
    apply_met = subject.apply_met

    def recording(snapshot, correction):
        slow.append(snapshot + correction)
        apply_met(snapshot, correction)

    subject.apply_met = recording


def test_the_next_one_leads_when_the_first_is_gone_and_a_newcomer_is_taken_in():
    async def main():
        swarm = await Groups(6).start()
        await asyncio.sleep(30)
        leaders = [event.partner for event in swarm.peers[0].events if event.outcome == "ok"]
        assert len(set(leaders)) > 1
        for victim in (1, 4):
            swarm.network.crash(NAMES[victim])
        survivors = [peer for i, peer in enumerate(swarm.peers) if i not in (1, 4)]
        await asyncio.sleep(60)
        swarm.peers[1] = await swarm.restart(1)
        await asyncio.sleep(60)
        present = [*survivors, swarm.peers[1]]
        await swarm.settle(present)
        met = groups_of(present)
        assert {4, 5} <= set(map(len, met.values()))
        last = max(met, key=lambda key: min(when(peer, key) for peer in survivors))
        assert len(met[last]) == 5

    run(main())


def when(peer, key):
    keys = [(event.partner, event.round) for event in peer.events]
    return keys.index(key) if key in keys else -1


def test_a_slow_member_is_waited_for_half_a_window_and_no_longer():
    async def main():
        swarm = Groups(5, h=10)
        swarm.peers[3]._options = SimOptions(
            swarm.options.matching, choice("cadence", "every_h", h=10), step_s=10.0
        )
        await swarm.start()
        await asyncio.sleep(300)
        await swarm.settle()
        assert drift(swarm.peers) < LAW
        quick = outcomes(swarm.peers[0])["ok"]
        assert quick > 300 / 10 / 1.8
        assert outcomes(swarm.peers[3])["ok"] >= 4

    run(main())


def test_groups_survive_what_pairs_survive():
    async def main():
        tally = Counter()  # of the sizes of meetings
        for seed in range(4):
            swarm = await Groups(6, h=4, seed=seed, link=Link(0.2, 300.0)).start()
            dice = random.Random(seed)
            for _ in range(40):
                await asyncio.sleep(3)
                opener, sender = dice.sample(NAMES[:6], 2)
                topic = dice.choice(["group", "group", "ask"])
                sender = dice.choice([opener, sender])
                swarm.network.cuts.append(Cut(opener, sender, dice.randrange(900), topic))
                if dice.random() < 0.2:
                    swarm.network.freeze(dice.choice(NAMES[:6]), 8.0)
            await swarm.settle()
            given_up = sum(peer.gossip.pending.given_up for peer in swarm.peers)
            assert given_up == 0
            assert drift(swarm.peers) < LAW
            for peer in swarm.peers:
                tally.update(e.members for e in peer.events if e.outcome == "ok")
        assert tally[6] > 30
        assert tally.total() - tally[6] > 30

    run(main())


@pytest.mark.parametrize("n", [8, 10])
def test_random_groups_keep_a_swarm_together(n):
    async def main():
        swarm = await Groups(n, "random_groups", h=6).start()
        await asyncio.sleep(200)
        await swarm.settle()
        assert drift(swarm.peers) < LAW
        met = groups_of(swarm.peers)
        assert sum(map(len, met.values())) / len(met) > 3.4
        assert set(outcomes(*swarm.peers)) == {"ok"}

    run(main())
