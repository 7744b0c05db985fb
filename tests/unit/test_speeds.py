"""One peer ten times slower than the others, in virtual time: it takes part and nobody waits."""

import asyncio
from dataclasses import replace

import pytest

from swarmnet.sim import clock
from tests.unit.swarms import LAW, Swarm, choice, drift, one_sided, outcomes

SLOWER = 10.0
CADENCES = [("every_h", {"h": 1}), ("by_rate", {"round_s": 10.0}), ("by_rate", {"round_s": 5.0})]


def train(n, cadence, slowdown=1.0, seconds=400.0, seed=1):
    """``n`` peers with steps of a second, the first of them slower; judged, then returned."""

    async def main():
        swarm = Swarm(0, seed=seed)
        name, options = cadence
        swarm.options = replace(swarm.options, cadence=choice("cadence", name, **options))
        swarm.peers = [swarm.peer(i) for i in range(n)]
        swarm.peers[0].slowdown = slowdown
        await swarm.start()
        await asyncio.sleep(seconds)
        await swarm.settle(calm_s=1.0)
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []
        return swarm.peers

    return clock.run(main())


def share(outcome, *peers):
    seen = outcomes(*peers)
    return seen[outcome] / (seen["ok"] + seen["solo"])


@pytest.mark.parametrize("cadence", CADENCES, ids=str)
def test_a_slow_peer_meets_in_nearly_all_its_windows_and_leaves_nobody_alone(cadence):
    slow, *fast = train(5, cadence, SLOWER)
    without = train(4, cadence)
    assert set(outcomes(slow, *fast)) <= {"ok", "solo"}
    assert outcomes(slow)["ok"] > 0.8 * slow.steps > 30
    assert share("ok", slow) > 0.9
    assert len({event.partner for event in slow.events if event.outcome == "ok"}) == 4
    assert min(peer.steps for peer in fast) >= min(peer.steps for peer in without) - 5
    # Five is odd: in each step of the slow one somebody is left over, which alone makes 2.5 %.
    assert share("solo", *fast) < 0.08


def test_at_a_fixed_number_of_steps_a_slow_peer_meets_ten_times_less_often():
    slow, *fast = train(5, ("every_h", {"h": 10}), SLOWER)
    rated, *_ = train(5, ("by_rate", {"round_s": 10.0}), SLOWER)
    assert outcomes(slow)["ok"] < min(outcomes(peer)["ok"] for peer in fast) / 4
    assert outcomes(rated)["ok"] > 4 * outcomes(slow)["ok"]


def test_two_that_are_both_ripe_rarely_do_not_miss_each_other():
    slow, fast = train(2, ("by_rate", {"round_s": 30.0}), SLOWER, seconds=900.0)
    assert share("ok", slow, fast) > 0.85
