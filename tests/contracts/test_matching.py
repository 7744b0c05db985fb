"""What every matching keeps: pairs agree without a message, and nobody meets itself."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from swarmnet import registry
from swarmnet.wire.messages import MAX_GROUP

NAMES = registry.names("matching")
SIZES = [1, 2, 3, 4, 5, 7, 8, 13, 16, 33]


@pytest.fixture(params=NAMES)
def matching(request):
    cls = registry.find("matching", request.param)
    return cls(cls.Config())


def roster_of(n):
    return [f"peer{i:02d}" for i in range(n)]


def shuffled(items, seed):
    items = list(items)
    random.Random(seed).shuffle(items)
    return items


@pytest.mark.parametrize("n", SIZES)
def test_partners_are_mutual_and_never_oneself(matching, n):
    roster = roster_of(n)
    for index in range(20):
        partners = {me: matching.partner(me, roster, index, seed=5) for me in roster}
        for me, partner in partners.items():
            assert partner is None or (partner != me and partners[partner] == me)


def test_the_schedule_depends_on_the_members_and_not_on_their_order(matching):
    roster = roster_of(9)
    for index in range(12):
        answers = {matching.partner("peer04", shuffled(roster, s), index, 7) for s in range(5)}
        assert len(answers) == 1


def test_who_is_not_on_the_roster_has_no_schedule(matching):
    with pytest.raises(ValueError, match="stranger"):
        matching.partner("stranger", roster_of(4), 0, 0)


@pytest.mark.parametrize("n", SIZES)
def test_a_group_is_the_same_tuple_for_each_of_its_members(matching, n):
    roster = roster_of(n)
    for index in range(10):
        groups = {me: matching.group(me, shuffled(roster, index), index, 5) for me in roster}
        for me, group in groups.items():
            assert me in group
            assert len(set(group)) == len(group)
            assert all(groups[other] == group for other in group)
            partner = matching.partner(me, roster, index, 5)
            if len(group) <= 2:
                assert group in ((me,), (me, partner), (partner, me))
            else:
                assert partner is None


@pytest.mark.parametrize("n", [0, *SIZES, 48, 49, 1000])
def test_sizes_are_within_the_swarm_and_the_wire(matching, n):
    assert 0 <= matching.quorum(n) <= matching.size(n) <= min(n, MAX_GROUP)
    if n in SIZES:
        largest = max(len(matching.group(me, roster_of(n), 0, 0)) for me in roster_of(n))
        assert largest <= max(1, matching.size(n))


def test_who_is_not_on_the_roster_has_no_group(matching):
    with pytest.raises(ValueError, match="stranger"):
        matching.group("stranger", roster_of(4), 0, 0)


def test_everyone_is_one_group_and_above_the_bound_equal_ones():
    cls = registry.find("matching", "everyone")
    matching = cls(cls.Config())
    for n in SIZES[1:]:
        assert sorted(matching.group("peer00", roster_of(n), 3, 7)) == roster_of(n)
        assert matching.size(n) == matching.quorum(n) == n
    large = [f"peer{i:03d}" for i in range(100)]
    groups = {matching.group(me, large, 0, 0) for me in large}
    assert sorted(map(len, groups)) == [33, 33, 34]
    assert groups != {matching.group(me, large, 1, 0) for me in large}


def test_random_groups_refuse_a_quorum_that_cannot_be_reached():
    cls = registry.find("matching", "random_groups")
    with pytest.raises(ValueError, match="above size"):
        cls.Config(size=4, quorum=5)


def test_candidates_are_live_peers_each_at_most_once(matching):
    live = roster_of(9)
    history = ["peer03", "gone", "peer05", "peer03"]
    offers = matching.candidates("me", tuple(live), tuple(history), random.Random(1))
    assert len(set(offers)) == len(offers)
    assert set(offers) <= set(live)
    assert matching.candidates("me", [], history, random.Random(1)) == []


def test_candidates_follow_the_peers_own_generator(matching):
    live = roster_of(9)
    first = matching.candidates("me", live, [], random.Random(1))
    assert matching.candidates("me", shuffled(live, 3), [], random.Random(1)) == first


def test_nobody_to_meet_takes_no_rounds(matching):
    assert matching.rounds(0) == matching.rounds(1) == 0
    assert matching.partner("peer00", roster_of(1), 0, 0) is None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "solo"])
@pytest.mark.parametrize("n", SIZES[1:])
def test_the_scheduled_rounds_bring_consensus(name, n):
    cls = registry.find("matching", name)
    assert mean_distance_left(cls(cls.Config()), n) < 0.5


@pytest.mark.parametrize(("n", "most"), [(2, 0), (4, 0), (16, 0), (64, 0), (3, 0.03), (11, 0.03)])
def test_a_hypercube_reaches_the_exact_mean_for_powers_of_two(n, most):
    cls = registry.find("matching", "hypercube")
    assert mean_distance_left(cls(cls.Config()), n) <= most


@pytest.mark.parametrize("name", ["hypercube", "random_pairs"])
def test_offers_go_to_everybody_with_recent_partners_last(name):
    cls = registry.find("matching", name)
    live = roster_of(8)
    firsts = set()
    for seed in range(200):
        offers = cls(cls.Config()).candidates("me", live, ["a", *live], random.Random(seed))
        assert sorted(offers) == live
        assert offers[4:] == live[4:]
        firsts.add(offers[0])
    assert firsts == set(live[:4])


@pytest.mark.parametrize("n", [2, 7, 8])
def test_random_pairs_leave_at_most_one_idle_and_vary(n):
    cls = registry.find("matching", "random_pairs")
    matching, roster = cls(cls.Config()), roster_of(n)
    rounds = [tuple(matching.partner(me, roster, i, 0) for me in roster) for i in range(40)]
    assert all(partners.count(None) == n % 2 for partners in rounds)
    assert len(set(rounds)) > (1 if n > 2 else 0)


@pytest.mark.parametrize("n", SIZES[1:])
def test_a_ring_is_one_ring(n):
    """Whom a peer meets are two neighbours, the same in every round, and together they are one."""
    cls = registry.find("matching", "ring")
    matching, roster = cls(cls.Config()), roster_of(n)
    met = {me: {matching.partner(me, roster, i, 3) for i in range(2 * n)} - {None} for me in roster}
    assert {len(partners) for partners in met.values()} == {min(2, n - 1)}
    assert reached(met, roster[0]) == set(roster)


@pytest.mark.parametrize("n", [3, 4, 9])
def test_offers_on_a_ring_go_to_two_neighbours_the_last_partner_second(n):
    cls = registry.find("matching", "ring")
    matching, roster = cls(cls.Config()), roster_of(n)
    offers = {
        me: matching.candidates(me, [p for p in roster if p != me], [], random.Random(0))
        for me in roster
    }
    assert all(len(names) == 2 for names in offers.values())
    assert reached(offers, roster[0]) == set(roster)
    assert all(me in offers[other] for me in roster for other in offers[me])
    first, second = offers["peer00"]
    live = roster[1:]
    for history in ([first, second], [second, first]):
        offered = matching.candidates("peer00", live, history, random.Random(0))
        assert offered == history


@pytest.mark.parametrize("n", [2, 3, 8, 9, 16])
def test_scheduled_self_repellent_pairs_meet_all_others_before_any_twice(n):
    cls = registry.find("matching", "self_repellent")
    matching, roster = cls(cls.Config()), roster_of(n)
    sweep = n - 1 + n % 2
    for start in (0, sweep):
        for me in roster:
            met = [matching.partner(me, roster, start + i, 4) for i in range(sweep)]
            assert sorted(p for p in met if p) == [p for p in roster if p != me]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_self_repellent_odds_fall_with_the_meetings(alpha):
    cls = registry.find("matching", "self_repellent")
    matching, rng = cls(cls.Config(alpha=alpha)), random.Random(5)
    live, history = ["a", "b", "c"], ["b", "c", "gone", "c", "c"]
    draws = 6000
    firsts = [matching.candidates("me", live, history, rng)[0] for _ in range(draws)]
    weights = [(1 + history.count(peer)) ** -alpha for peer in live]
    for peer, weight in zip(live, weights, strict=True):
        expected = weight / sum(weights)
        sigma = (expected * (1 - expected) / draws) ** 0.5
        assert abs(firsts.count(peer) / draws - expected) < 4 * sigma


def test_solo_meets_nobody():
    cls = registry.find("matching", "solo")
    matching = cls(cls.Config())
    assert matching.candidates("me", roster_of(5), [], random.Random(0)) == []
    assert all(matching.partner("peer00", roster_of(4), index, 0) is None for index in range(9))
    assert matching.rounds(8) == 0


@pytest.mark.parametrize("folder", ["matching", "cadence"])
def test_these_choices_need_no_torch(folder):
    modules = ", ".join(f"swarmnet.{folder}.{name}" for name in registry.names(folder))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def reached(neighbours, start):
    found, edge = {start}, [start]
    while edge:
        edge = [p for peer in edge for p in neighbours[peer] if p not in found]
        found.update(edge)
    return found


def mean_distance_left(matching, n):
    """Distance between peers after the phase over before it, root mean square of 20 runs."""
    total, runs = 0.0, 20
    for seed in range(runs):
        source = random.Random(seed)
        values = {me: source.gauss(0, 1) for me in roster_of(n)}
        before = spread(values)
        for index in range(matching.rounds(n)):
            groups = {me: matching.group(me, list(values), index, seed) for me in values}
            values = {
                me: sum(values[peer] for peer in group) / len(group) for me, group in groups.items()
            }
        total += (spread(values) / before) ** 2
    return round((total / runs) ** 0.5, 12)


def spread(values):
    mean = sum(values.values()) / len(values)
    return (sum((v - mean) ** 2 for v in values.values()) / len(values)) ** 0.5
