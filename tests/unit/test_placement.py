"""Placement: the slowest stage is helped, one peer at a time, and whoever need not move stays."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from swarmnet.pipeline.lease import Claim, Lease
from swarmnet.pipeline.placement import Move, Rules, Serving, join, migrate, throughputs

AT_ONCE = Rules(cool_down_s=0.0)


def view_of(*counts, rate=1.0):
    """``counts[s]`` settled peers of stage s, all alike."""
    return [
        Serving(f"peer{stage}.{index}", stage, rate)
        for stage, count in enumerate(counts)
        for index in range(count)
    ]


def counts_of(view, stages):
    return [sum(serving.stage == stage for serving in view) for stage in range(stages)]


def moved(view, move):
    return [
        replace(serving, stage=move.target) if serving.peer == move.peer else serving
        for serving in view
    ]


def settle(view, stages, rules=AT_ONCE, most=50):
    """All moves until everybody stays, with the views in between."""
    views = [view]
    while (move := migrate(views[-1], stages, rules)) is not None:
        views.append(moved(views[-1], move))
        assert len(views) <= most
    return views


# ---- moves ----------------------------------------------------------------------------------


def test_six_one_one_becomes_three_three_two_and_stays():
    views = settle(view_of(6, 1, 1), 3)
    assert sorted(counts_of(views[-1], 3)) == [2, 3, 3]
    assert len(views) == 4
    for before, after in pairwise(views):
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert min(counts_of(after, 3)) >= 1


def test_everybody_who_sees_the_same_names_the_same_mover():
    view = view_of(6, 1, 1)
    moves = {migrate(random.Random(s).sample(view, len(view)), 3, AT_ONCE) for s in range(20)}
    assert len(moves) == 1
    move = moves.pop()
    assert isinstance(move, Move)
    assert (move.source, move.gain) == (0, pytest.approx(1.0))


def test_a_stage_at_its_floor_is_never_left():
    assert migrate(view_of(2, 1), 2, AT_ONCE) is None
    assert migrate(view_of(3, 1), 2, AT_ONCE) is not None
    assert migrate(view_of(3, 1), 2, replace(AT_ONCE, floor=3)) is None
    assert migrate(view_of(2, 0), 2, replace(AT_ONCE, floor=1)).target == 1
    assert migrate(view_of(2, 0), 2, AT_ONCE) is None


def test_peers_on_their_way_count_where_they_go_and_not_for_the_floor():
    arriving = [*view_of(4, 2), Serving("new", 1, 1.0, ready=False)]
    assert migrate(arriving, 2, AT_ONCE) is None
    leaving = [*view_of(2, 1), *(Serving(f"new{i}", 0, 1.0, ready=False) for i in range(3))]
    assert migrate(leaving, 2, AT_ONCE) is None


def test_whoever_has_just_moved_stays_for_a_while():
    view = [replace(serving, settled_s=119.0) for serving in view_of(6, 2)]
    assert migrate(view, 2, Rules()) is None
    view[3] = replace(view[3], settled_s=120.0)
    assert migrate(view, 2, Rules()).peer == "peer0.3"


def test_a_gain_below_the_threshold_moves_nobody():
    view = view_of(21, 19)
    assert migrate(view, 2, AT_ONCE) is None
    assert migrate(view, 2, replace(AT_ONCE, gain=0.05)) is not None


def test_of_unequal_peers_the_one_that_balances_best_goes():
    view = [Serving(f"peer{i}", 0, rate) for i, rate in enumerate([5.0, 2.0, 1.0])]
    view += [Serving("lone", 1, 2.0), Serving("unmeasured", 1, 0.0)]
    assert throughputs(view, 2) == [8.0, 4.0]
    assert migrate(view, 2, AT_ONCE).peer == "peer1"


def test_nobody_at_all_is_no_error():
    assert migrate([], 3, AT_ONCE) is None
    assert join([], 3, "me") in range(3)


@pytest.mark.parametrize("seed", range(10))
def test_a_balanced_swarm_with_noisy_rates_stays(seed):
    source = random.Random(seed)
    for counts in ([4, 4, 4], [3, 3, 2], [8, 8, 8, 8], [4] * 32, [5, 4, 4], [40, 40]):
        for _ in range(20):
            view = [replace(serving, rate=source.gauss(1.0, 0.05)) for serving in view_of(*counts)]
            assert migrate(view, len(counts), AT_ONCE) is None


@pytest.mark.parametrize("counts", [(4, 4, 4), (6, 6, 6), (8, 8, 8), (4,) * 32, (6,) * 8])
def test_two_periods_after_half_a_stage_died_ninety_per_cent_of_the_optimum_is_back(counts):
    stages = len(counts)
    view = [
        serving for index, serving in enumerate(view_of(*counts)) if serving.stage != 1 or index % 2
    ]
    for _ in range(2):
        if move := migrate(view, stages, Rules()):
            view = [
                replace(s, stage=move.target, settled_s=0.0) if s.peer == move.peer else s
                for s in view
            ]
    assert min(throughputs(view, stages)) >= 0.9 * (len(view) // stages)


@pytest.mark.parametrize("seed", range(60))
def test_each_move_lifts_the_lowest_and_equal_peers_end_at_the_best_split(seed):
    source = random.Random(seed)
    stages = source.randint(2, 9)
    counts = [source.randint(1, 9) for _ in range(stages)]
    unequal = seed % 2
    view = [replace(s, rate=source.uniform(0.5, 2.0) if unequal else 1.0) for s in view_of(*counts)]
    rules = replace(AT_ONCE, floor=1)
    views = settle(view, stages, rules, most=200)
    for before, after in pairwise(views):
        assert sorted(throughputs(after, stages)) > sorted(throughputs(before, stages))
        assert min(counts_of(after, stages)) >= 1
    final = counts_of(views[-1], stages)
    if not unequal:
        assert min(final) == sum(counts) // stages
    best = sum(throughputs(view, stages)) / stages
    largest = max(serving.rate for serving in view)
    assert min(throughputs(views[-1], stages)) >= best / (1 + rules.gain) - 1.5 * largest


# ---- newcomers ------------------------------------------------------------------------------


def test_a_newcomer_goes_where_most_is_asked_per_rate():
    assert join(view_of(3, 2, 3), 3, "me") == 1
    assert join(view_of(3, 0, 1), 3, "me") == 1
    view = [replace(s, demand=9.0 if s.stage == 2 else 1.0) for s in view_of(3, 2, 3)]
    assert join(view, 3, "me") == 2
    waiting = [*view_of(2, 1), Serving("new", 1, 0.0, ready=False), Serving("new2", 1, 0.0)]
    assert join(waiting, 2, "me") == 0


def test_newcomers_at_the_same_time_spread_over_equals():
    found = [join(view_of(2, 2, 2, 9), 4, f"peer{i}") for i in range(300)]
    assert set(found) == {0, 1, 2}
    assert min(found.count(stage) for stage in range(3)) > 60
    assert found == [join(view_of(2, 2, 2, 9), 4, f"peer{i}") for i in range(300)]


@pytest.mark.parametrize("seed", range(5))
def test_newcomers_one_by_one_fill_stages_evenly(seed):
    view = []
    for index in range(23):
        name = f"peer{seed}.{index}"
        view.append(Serving(name, join(view, 5, name), 1.0))
    assert sorted(counts_of(view, 5)) == [4, 4, 5, 5, 5]


# ---- the lease ------------------------------------------------------------------------------


def lease(me="a", period_s=60.0, settle_s=4.0):
    return Lease(me, period_s, settle_s, random.Random(me))


def claimed(who, at=100.0, known=()):
    """A lease that has claimed at ``at`` after a whole period of looking."""
    who.read(known, 0.0)
    who.read(known, at)
    return who.claim(at)


def lower_and_higher(number):
    pair = Claim(number, "a"), Claim(number, "b")
    return sorted(pair, key=lambda claim: claim.rank)


def test_a_claim_that_nobody_contests_moves_after_it_has_settled():
    me = lease()
    claim = claimed(me)
    assert claim == Claim(1, "a")
    assert me.verdict(100.0) == "wait"
    me.read([claim], 103.0)
    assert me.verdict(105.0) == "wait"  # what was read then may not hold what came since
    me.read([claim], 105.0)
    assert me.verdict(105.0) == "move"
    assert me.verdict(106.0) == "yield"


def test_nobody_claims_before_a_period_is_over_or_on_an_old_read():
    me = lease()
    assert me.claim(0.0) is None
    me.read([], 0.0)
    assert me.claim(1.0) is None
    me.read([Claim(7, "b")], 50.0)
    me.read([Claim(7, "b")], 100.0)
    assert me.claim(100.0) is None
    me.read([Claim(7, "b")], 120.0)
    assert me.claim(123.0) is None
    me.read([Claim(7, "b"), Claim(3, "c")], 124.0)
    assert me.claim(124.0) == Claim(8, "a")
    assert me.claim(124.0) is None


def test_the_lowest_hash_wins_and_the_loser_waits_another_period():
    winner, loser = (lease(claim.peer) for claim in lower_and_higher(1))
    claims = [claimed(winner), claimed(loser)]
    for one in (winner, loser):
        one.read(claims, 105.0)
    assert winner.verdict(105.0) == "move"
    assert loser.verdict(105.0) == "yield"
    for one in (winner, loser):
        one.read(claims, 150.0)
        assert one.claim(150.0) is None
        one.read(claims, 180.0)
        assert one.claim(180.0) == Claim(2, one.me)


def test_a_later_number_ends_an_old_claim():
    me = lease()
    claim = claimed(me)
    me.read([claim, Claim(5, "b")], 105.0)
    assert me.verdict(105.0) == "yield"


def test_a_claim_that_is_never_read_back_is_given_up():
    me = lease()
    claimed(me)
    me.read([], 110.0)
    assert me.verdict(110.0) == "wait"
    me.read([], 170.0)
    assert me.verdict(170.0) == "yield"


def test_numbers_from_nowhere_are_ignored():
    me = lease()
    assert claimed(me, known=[Claim(2**60, "b"), Claim(-4, "c"), Claim(2, "d")]) == Claim(3, "a")


class Peer:
    """A peer that looks at the common view and record now and then, with a clock of its own."""

    def __init__(self, name, source):
        self.name = name
        self.ahead = source.uniform(-600, 600)
        self.lease = Lease(name, 60.0, 6.0, random.Random(name))

    def look(self, world, now):
        """At true time ``now``; returns whether it moves."""
        mine = now + self.ahead
        self.lease.read(world.visible(now), mine)
        if self.lease.verdict(mine) == "move":
            return True
        move = migrate(world.seen_by(self.name, now), world.stages, AT_ONCE)
        claim = self.lease.claim(mine) if move and move.peer == self.name else None
        if claim:
            world.written.append((now + world.source.uniform(0.1, 2.0), claim))
        return False


class Swarm:
    """Views up to 20 s old, a different one for each peer, and records that take 2 s to be seen."""

    def __init__(self, view, stages, seed):
        self.stages, self.source = stages, random.Random(seed)
        self.history, self.written, self.moves = [(0.0, view)], [], []
        self.peers = [Peer(serving.peer, self.source) for serving in view]
        self.lag = {peer.name: self.source.uniform(0, 20) for peer in self.peers}

    def visible(self, now):
        latest = {}
        for at, claim in self.written:
            if at <= now:
                latest[claim.peer] = claim
        return list(latest.values())

    def seen_by(self, peer, now):
        return [view for at, view in self.history if at <= max(0.0, now - self.lag[peer])][-1]

    def run(self, seconds):
        now = 0.0
        while now < seconds:
            now += self.source.uniform(0.05, 0.5)
            peer = self.source.choice(self.peers)
            if peer.look(self, now):
                view = self.history[-1][1]
                move = migrate(self.seen_by(peer.name, now), self.stages, AT_ONCE)
                if move and move.peer == peer.name:
                    self.history.append((now, moved(view, move)))
                self.moves.append(now)
        return self.history[-1][1]


@pytest.mark.parametrize("seed", range(6))
def test_peers_with_other_clocks_and_old_views_move_one_per_period(seed):
    swarm = Swarm(view_of(6, 1, 1), 3, seed)
    view = swarm.run(500.0)
    assert sorted(counts_of(view, 3)) == [2, 3, 3]
    assert all(b - a >= 60.0 - 8.0 for a, b in pairwise(swarm.moves))
    assert len(swarm.moves) <= 5
    assert all(min(counts_of(view, 3)) >= 1 for _, view in swarm.history)
