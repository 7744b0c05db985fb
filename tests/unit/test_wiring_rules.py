"""The wirings' own rules: exact shares, exact averages, and who is preferred to whom."""

from __future__ import annotations

import random

import pytest

from swarmnet.wiring._estimate import Estimate
from tests.wirings import built, drive, share

COSTS = {"a": 0.1, "b": 0.25, "c": 0.4, "d": 1.0, "e": 3.0}


def settled(name, costs, seed=0):
    """A wiring that has measured ``costs`` exactly, with nothing open and nothing charged yet."""
    wiring = built(name, seed)
    wiring.serve(costs, 0.0)
    for peer, seconds in costs.items():
        for _ in range(4):
            wiring.finished(peer, 1, seconds, 0.0)
    return wiring


def loads(wiring):
    return [known.load for known in wiring._known.values()]


@pytest.mark.parametrize("seed", range(3))
def test_loads_never_lie_further_apart_than_the_largest_cost(seed):
    wiring, counts, widest = settled("swarm", COSTS, seed), dict.fromkeys(COSTS, 0), 0.0
    for _ in range(20_000):
        peer = wiring.pick(1, 0.0)
        counts[peer] += 1
        wiring.finished(peer, 1, COSTS[peer], 0.0)
        widest = max(widest, max(loads(wiring)) - min(loads(wiring)))
    assert widest == pytest.approx(3.0, abs=1e-6)
    work = [counts[peer] * seconds for peer, seconds in COSTS.items()]
    assert max(work) - min(work) <= 3.0 + 1e-6


def test_after_whole_rounds_shares_are_exact():
    """Where all loads are level again: 20,000 picks are about 1,086 rounds of 3 s."""
    wiring, counts, closest = settled("swarm", COSTS), dict.fromkeys(COSTS, 0), 1.0
    for count in range(20_000):
        peer = wiring.pick(1, 0.0)
        counts[peer] += 1
        wiring.finished(peer, 1, COSTS[peer], 0.0)
        if count > 19_900:
            work = [counts[p] * seconds for p, seconds in COSTS.items()]
            closest = min(closest, max(work) / min(work) - 1)
    assert closest < 3e-4


def test_sizes_are_charged_by_the_sequence():
    wiring, source = settled("swarm", COSTS), random.Random(1)
    done = dict.fromkeys(COSTS, 0)
    for _ in range(5000):
        size = source.choice([1, 2, 8])
        peer = wiring.pick(size, 0.0)
        done[peer] += size
        wiring.finished(peer, size, size * COSTS[peer], 0.0)
        assert max(loads(wiring)) - min(loads(wiring)) <= 8 * 3.0 + 1e-6
    work = [done[peer] * seconds for peer, seconds in COSTS.items()]
    assert max(work) - min(work) <= 8 * 3.0 + 1e-6


@pytest.mark.parametrize("value", [0.005, 1.0, 7.3])
def test_the_average_of_equal_samples_is_their_value(value):
    estimate = Estimate()
    assert estimate.value is None
    for _ in range(300):
        estimate.add(value)
        assert estimate.value == pytest.approx(value, rel=1e-12)
    assert estimate.late == pytest.approx(4 * value)


def test_the_average_follows_the_closed_form():
    samples = [0.005, 2.0, 2.0, 2.0]
    expected = [0.005, 1.0550, 1.4041, 1.5777]
    estimate = Estimate()
    for count, (sample, value) in enumerate(zip(samples, expected, strict=True), start=1):
        estimate.add(sample)
        weights = [0.9 ** (count - 1 - i) for i in range(count)]
        exact = sum(w * z for w, z in zip(weights, samples, strict=False)) / sum(weights)
        assert estimate.value == pytest.approx(exact, rel=1e-12)
        assert estimate.value == pytest.approx(value, abs=1e-3)


def test_only_whole_results_and_late_ones_are_samples():
    """A question that took 5 ms would seed the average of a 2 s peer (1.577 after three)."""
    wiring = built("swarm")
    wiring.serve("ab", 0.0)
    for _ in range(3):
        wiring.refused("a", 0.0, 0.0)
        wiring.failed("b", 0.0)
        wiring.finished("a", 1, 2.0, 0.0)
    assert wiring._known["a"].wall.value == pytest.approx(2.0, rel=1e-12)
    assert wiring._known["b"].wall.value is None


def test_a_deadline_grows_with_the_scatter_of_a_peers_results():
    steady, wild, source = Estimate(), Estimate(), random.Random(3)
    for _ in range(200):
        steady.add(1.0)
        wild.add(source.expovariate(1.0))
    assert steady.late == pytest.approx(4.0)
    assert wild.late > 4.5


def test_a_late_answer_never_makes_a_peer_look_faster():
    wiring = settled("swarm", {"a": 3.0, "b": 3.0})
    wiring.late("a", 1, 0.5, 10.0)
    assert wiring._known["a"].wall.value == pytest.approx(3.0)
    wiring.late("a", 1, 30.0, 100.0)
    assert wiring._known["a"].wall.value > 3.0


def test_newcomers_join_at_the_least_load_and_are_charged_like_the_others():
    wiring = settled("swarm", {"a": 0.2, "b": 0.2})
    for _ in range(1000):
        wiring.finished(wiring.pick(1, 0.0), 1, 0.2, 0.0)
    before = min(loads(wiring))
    wiring.serve("abc", 0.0)
    assert wiring._known["c"].load == before
    assert wiring.pick(1, 0.0, {"a", "b"}) == "c"
    assert wiring._known["c"].load <= before + 0.2 + 1e-9


def test_a_banned_peer_comes_back_at_the_end_of_the_line_with_what_is_known_of_it():
    wiring = settled("swarm", {"a": 0.2, "b": 1.0, "c": 0.2})
    wiring.failed("a", 0.0)
    for _ in range(100):
        wiring.finished(peer := wiring.pick(1, 0.0), 1, {"b": 1.0, "c": 0.2}[peer], 0.0)
    back = wiring._known["a"]
    others = [wiring._known["b"].load, wiring._known["c"].load]
    assert back.load >= min(others)
    assert back.load >= max(others) - 1.0 - 1e-9
    assert back.wall.value == pytest.approx(0.2)
    now = wiring.next_at(0.0)
    first = [wiring.pick(1, now) for _ in range(20)]
    assert first.count("a") == 1


def test_who_could_not_be_asked_does_not_make_up_for_it():
    wiring = settled("swarm", dict.fromkeys("abcd", 0.1))
    wiring.refused("a", 5.0, 0.0)
    for _ in range(300):
        wiring.finished(wiring.pick(1, 0.0), 1, 0.1, 0.0)
    later = [wiring.pick(1, 6.0) for _ in range(40)]
    assert later.count("a") <= 11


def test_a_pick_that_was_not_used_is_not_charged():
    wiring = settled("swarm", {"a": 1.0, "b": 1.0})
    before = dict(zip("ab", loads(wiring), strict=True))
    peer = wiring.pick(1, 0.0)
    wiring.refused(peer, 0.0, 0.0)
    assert wiring._known[peer].load == before[peer]
    assert len(wiring._known[peer].flights) == 0
    assert wiring.next_at(0.0) is None


def test_a_slow_peer_gets_its_share_under_swarm_and_an_equal_one_under_round_robin():
    pace = {"a": 0.1, "b": 0.1, "c": 0.5}
    shares = {}
    for name in ("swarm", "fastest", "latency_aware", "round_robin", "uniform"):
        wiring = built(name)
        wiring.serve(pace, 0.0)
        picks = drive(wiring, pace, 200.0, window=6)
        shares[name] = share(picks, "c", 100, 200), len(picks)
    assert shares["round_robin"][0] == pytest.approx(1 / 3, abs=0.01)
    assert shares["uniform"][0] == pytest.approx(1 / 3, abs=0.01)
    assert shares["swarm"][0] < 0.15
    assert shares["latency_aware"][0] < 0.15
    assert shares["fastest"][0] < 0.05  # three deep at a fast peer is sooner than at the slow one
    for name in ("swarm", "fastest", "latency_aware"):
        assert shares[name][1] > 1.5 * shares["round_robin"][1]


def test_a_hung_peer_falls_below_a_hundredth_within_a_few_deadlines():
    pace = dict.fromkeys("abcd", 0.1)
    wiring = built("swarm")
    wiring.serve(pace, 0.0)
    picks = drive(wiring, pace, 300.0, hung=lambda peer, now: peer == "c" and 50 <= now < 150)
    assert share(picks, "c", 40, 50) == pytest.approx(0.25, abs=0.03)
    assert share(picks, "c", 50 + 3 * 2.0, 150) < 0.01
    assert share(picks, "c", 230, 300) == pytest.approx(0.25, abs=0.05)


def test_uniform_asks_everybody_once_before_anybody_twice_in_random_orders():
    wiring = settled("uniform", COSTS)
    rounds = [tuple(wiring.pick(1, 0.0) for _ in COSTS) for _ in range(200)]
    assert {frozenset(order) for order in rounds} == {frozenset(COSTS)}
    assert len(set(rounds)) > 80
