"""A rival for a partner that is late: exactly one meeting goes on, and nothing is left open."""

import asyncio

import pytest

from swarmnet.exchange.hedge import first_to_accept
from swarmnet.exchange.links import HEDGE_FIRST_S
from swarmnet.exchange.pair import End
from swarmnet.exchange.window import Window
from swarmnet.sim import clock
from swarmnet.sim.network import Link
from swarmnet.wire.messages import Offer
from tests.unit.swarms import LAW, NAMES, Swarm, drift, one_sided, outcomes

ANN, BOB, COE = NAMES[:3]
NEVER = 1e6


def run(main):
    return clock.run(main)


# ---- the race alone -------------------------------------------------------------------------


class FakeCall:
    """Answers after ``answer_s``; an Exception as the answer is a bug in the call."""

    def __init__(self, answer_s, answer=True, close_s=0.0):
        self.answer_s, self.answer, self.close_s = answer_s, answer, close_s
        self.began_at = None
        self.open = False
        self.withdrawn = 0

    async def ask(self):
        self.began_at, self.open = clock.now(), True
        try:
            await asyncio.sleep(self.answer_s)
            if isinstance(self.answer, Exception):
                raise self.answer
        except BaseException:
            await asyncio.sleep(self.close_s)
            self.open = False
            raise
        self.open = self.answer
        return self.answer

    async def withdraw(self):
        self.withdrawn += 1
        self.open = False


def race(first, second, wait_s=1.0, cancel_at=None):
    """Returns the winner and when the race was over. Nobody but the winner may be open then."""

    async def main():
        task = asyncio.create_task(first_to_accept(first, wait_s, lambda: second))
        if cancel_at is not None:
            await asyncio.sleep(cancel_at)
            task.cancel()
        answers = await asyncio.gather(task, return_exceptions=True)
        at = clock.now()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return answers[0], at

    winner, at = run(main())
    for call in (first, second):
        if call is not None:
            assert call.open == (call is winner)
    return winner, at


def test_an_answer_in_time_needs_no_rival():
    for answer in (True, False):
        first, second = FakeCall(0.5, answer), FakeCall(0.0)
        winner, at = race(first, second)
        assert winner is (first if answer else None)
        assert at == 0.5
        assert second.began_at is None


def test_the_rival_of_a_frozen_partner_wins():
    first, second = FakeCall(NEVER), FakeCall(0.2)
    winner, at = race(first, second)
    assert winner is second
    assert (second.began_at, at) == pytest.approx((1.0, 1.2))
    assert first.withdrawn == 0


@pytest.mark.parametrize(("late_s", "wins"), [(1.1, 0), (1.3, 1)])
def test_the_first_to_accept_wins_also_after_the_rival_was_called(late_s, wins):
    calls = FakeCall(late_s), FakeCall(0.2)
    assert race(*calls)[0] is calls[wins]


def test_of_two_at_the_same_moment_the_first_call_wins_and_the_other_is_withdrawn():
    first, second = FakeCall(1.25), FakeCall(0.25)
    assert race(first, second)[0] is first
    assert (first.withdrawn, second.withdrawn) == (0, 1)


@pytest.mark.parametrize(("one", "other", "wins"), [(True, False, 0), (False, True, 1)])
def test_a_no_of_one_waits_for_the_other(one, other, wins):
    calls = FakeCall(1.2 if other else 2.0, one), FakeCall(0.1 if one else 1.0, other)
    winner, at = race(*calls)
    assert winner is calls[wins]
    assert at == 2.0


def test_both_may_decline():
    assert race(FakeCall(1.5, False), FakeCall(0.1, False)) == (None, 1.5)


def test_without_a_rival_the_late_one_is_waited_for():
    first = FakeCall(7.0)
    assert race(first, None) == (first, 7.0)


@pytest.mark.parametrize("cancel_at", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("close_s", [0.0, 0.3])
def test_cancellation_closes_every_call(cancel_at, close_s):
    first, second = FakeCall(NEVER, close_s=close_s), FakeCall(NEVER, close_s=close_s)
    answer, _ = race(first, second, cancel_at=cancel_at)
    assert isinstance(answer, asyncio.CancelledError)
    assert (second.began_at is not None) == (cancel_at > 1.0)


def test_cancellation_while_the_loser_closes_keeps_nobody():
    first, second = FakeCall(NEVER, close_s=1.0), FakeCall(0.5)
    answer, _ = race(first, second, cancel_at=2.0)
    assert isinstance(answer, asyncio.CancelledError)
    assert second.withdrawn == 1


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_bug_in_a_call_is_raised_and_closes_the_other(guilty):
    calls = [FakeCall(NEVER), FakeCall(NEVER)]
    calls[guilty].answer_s, calls[guilty].answer = 1.5, ValueError("a bug")
    answer, _ = race(*calls)
    assert isinstance(answer, ValueError)


# ---- between peers --------------------------------------------------------------------------


async def three(**links):
    """Ann, who is going to call Bob and has Coe as alternate; ``links``: to Bob and to Coe."""
    swarm = Swarm(3)
    network = swarm.network
    network._link = lambda a, b: links.get("bob" if BOB in (a, b) else "coe", Link())
    await swarm.stand()
    await asyncio.sleep(3.0)
    ann = swarm.peers[0]
    ann.gossip.window._order = [BOB, COE]
    return swarm, ann


async def judge(swarm, ann, meetings):
    """Whatever happened: applied on both sides or on none, nobody busy, nothing open."""
    await swarm.settle()
    assert drift(swarm.peers) < LAW
    assert one_sided(swarm.peers) == []
    assert outcomes(*swarm.peers)["ok"] == 2 * meetings
    assert not ann.gossip._calling


def test_a_frozen_partner_costs_a_hedge_and_no_deadline():
    async def main():
        swarm, ann = await three()
        began = clock.now()
        swarm.network.freeze(BOB, 60.0)
        assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED
        assert clock.now() - began < HEDGE_FIRST_S + 0.5
        await asyncio.sleep(1.5)
        (met,) = [event for event in ann.events if event.partner]
        assert (met.outcome, met.partner, met.called) == ("ok", COE, True)
        await asyncio.sleep(began + 64.0 - clock.now())
        assert outcomes(swarm.peers[1])["failed"] == 1
        assert BOB in ann.membership.alive(clock.now()), "a late partner is no suspect"
        assert ANN in swarm.peers[1].membership.alive(clock.now()), "nor is who called in vain"
        await judge(swarm, ann, 1)

    run(main())


@pytest.mark.parametrize("later_s", [-0.03, 0.005, 0.015, 0.025, 0.035, 0.045, 0.06, 0.2, 1.0])
@pytest.mark.parametrize("coe_s", [0.01, 0.3])
def test_an_answer_around_the_moment_of_the_hedge(later_s, coe_s):
    async def main():
        swarm, ann = await three(coe=Link(latency_s=coe_s))
        swarm.network.freeze(BOB, HEDGE_FIRST_S + later_s)
        assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED
        await asyncio.sleep(5.0)
        partners = [event.partner for event in ann.events if event.outcome == "ok"]
        await judge(swarm, ann, 1)
        return partners

    (partner,) = run(main())
    assert partner == (BOB if later_s + 0.01 < 4 * coe_s else COE)


def test_both_decline():
    async def main():
        swarm, ann = await three(bob=Link(latency_s=1.5))
        for peer in swarm.peers[1:]:
            peer.gossip.paused = True
        end = await ann.gossip.offer(BOB, "train", 0)
        assert end is End.DECLINED
        assert ann.gossip.window._not_before.keys() == {BOB, COE}
        await judge(swarm, ann, 0)

    run(main())


def test_a_dead_rival_leaves_the_late_partner_its_chance():
    async def main():
        swarm, ann = await three(bob=Link(latency_s=0.7))
        swarm.network.crash(COE)
        assert await ann.gossip.offer(BOB, "train", 0) is End.APPLIED
        await asyncio.sleep(5.0)
        assert {event.partner: event.outcome for event in ann.events if event.partner} == {
            COE: "failed",
            BOB: "ok",
        }

    run(main())


@pytest.mark.parametrize("at_s", [0.5, 2.0, 2.5, 3.5, 4.5, 5.5, 5.9])
def test_cancellation_while_both_are_called(at_s):
    async def main():
        swarm, ann = await three(bob=Link(latency_s=2.0), coe=Link(latency_s=1.0))
        task = asyncio.create_task(ann.gossip.offer(BOB, "train", 0))
        await asyncio.sleep(at_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ann.gossip.free
        await asyncio.sleep(10.0)
        await judge(swarm, ann, 0)

    run(main())


def test_no_hedge_in_the_consensus_phase():
    async def main():
        swarm, ann = await three()
        swarm.network.freeze(BOB, 60.0)
        assert await ann.gossip.offer(BOB, "consensus", 0) is End.FAILED
        assert {event.partner for event in ann.events if event.partner} == {BOB}
        assert not ann.gossip.window._not_before, "nobody else was asked"

    run(main())


@pytest.mark.parametrize(("called", "reason"), [({ANN}, None), ({ANN, COE}, "busy")])
def test_a_crossed_call_is_accepted_only_while_no_rival_may_accept(called, reason):
    async def main():
        swarm, _ = await three()
        bob = swarm.peers[1].gossip
        bob._calling = called
        layout, nbytes = bob._subject.layout, bob._subject.nbytes
        offer = Offer(round=1, phase="train", index=0, layout=layout, nbytes=nbytes)
        assert bob._refusal(ANN, offer) == reason

    run(main())


def test_peers_that_call_each_other_and_a_rival_all_come_free():
    """Both of a crossed pair may have a rival under way; at most one meeting each goes on."""

    async def main():
        for late in (2.0, 2.01, 2.02, 2.03, 2.05):
            swarm, ann = await three()
            bob = swarm.peers[1]
            bob.gossip.window._order = [ANN, COE]
            swarm.network.freeze(ANN, late)
            swarm.network.freeze(BOB, late)
            await asyncio.gather(
                ann.gossip.offer(BOB, "train", 0), bob.gossip.offer(ANN, "train", 0)
            )
            await swarm.settle()
            assert drift(swarm.peers) < LAW
            assert one_sided(swarm.peers) == []

    run(main())


def test_rivals_save_meetings_in_a_swarm_whose_peers_freeze_in_turn(monkeypatch):
    async def main(seed):
        swarm = await Swarm(6, h=2, seed=seed).start()
        for turn in range(40):
            swarm.network.freeze(NAMES[turn % 6], 6.0)
            await asyncio.sleep(5.0)
        await swarm.settle()
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []
        return outcomes(*swarm.peers)

    hedged = run(main(1)) + run(main(2))
    monkeypatch.setattr(Window, "alternate", lambda self, live, late: None)
    alone = run(main(1)) + run(main(2))
    assert hedged["ok"] > alone["ok"]
    assert hedged["failed"] < alone["failed"]
