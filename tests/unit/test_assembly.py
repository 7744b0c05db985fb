"""When a stage steps and who calls: the pure parts, one fact at a time."""

import random
from dataclasses import replace

import msgpack
import pytest

from swarmnet.errors import MessageError, PayloadError
from swarmnet.exchange.claims import colliding, pack, unpack
from swarmnet.exchange.group import Book, GroupLeader, Seating
from swarmnet.exchange.groupmember import GroupMember, Task
from swarmnet.exchange.ledger import Decisions
from swarmnet.exchange.pair import End
from swarmnet.pipeline.assembly import Alone, Assembly, Lead, Place, Resync, View, Wait
from swarmnet.pipeline.past import KEPT_COMMITS, KEPT_SAMPLES, Commit, Past
from swarmnet.wire.frame import MAX_CLAIMS
from swarmnet.wire.messages import Commit as CommitFrame
from swarmnet.wire.messages import Decide, Got, Have

ME, B, C, D, E = (f"peer{letter * 8}" for letter in "ABCDE")
PLACE = Place(ME, stage=0, stages=1, target=100, patience_s=20.0, turn_s=4.0)


def machine(past=None, **changes):
    return Assembly(replace(PLACE, **changes), past or Past())


def view(*mates, **steps):
    return View(frozenset(mates), {int(stage[1:]): step for stage, step in steps.items()})


def tally(tokens, past=None, stage=0):
    return Assembly(replace(PLACE, stage=stage), past or Past()).tally(tokens)


def leads(me, mates, step=0, tokens=100):
    """What each of these does at once when its batch is there; all know of all."""
    past = Past(step=step)
    machine_ = Assembly(replace(PLACE, me=me), past)
    for mate in mates:
        machine_.hear(mate, tally(tokens, past))
    return machine_.look(tokens, View(frozenset(mates), {}), 0.0)


# ---- when -------------------------------------------------------------------------------------


def test_nobody_calls_before_the_batch_is_there():
    one = machine()
    one.hear(B, tally(40))
    assert one.look(59, view(B), 0.0) == Wait(None, ripe=False)
    act = one.look(60, view(B), 0.0)
    assert isinstance(act, Lead) or act.ripe


def test_only_live_mates_at_my_step_count():
    one = machine()
    one.hear(B, tally(90))
    assert one.look(20, view(), 0.0) == Wait(None, ripe=False)
    past = Past().after([1], 100)
    two = machine(past)
    two.hear(B, tally(90))  # it is a step behind
    assert two.look(20, view(B), 0.0) == Wait(None, ripe=False)
    two.hear(B, tally(90, stage=1))  # of another stage: no news
    two.hear(B, tally(90, past))
    assert two.look(20, view(B), 0.0) != Wait(None, ripe=False)


def test_a_peer_alone_steps_alone():
    one = machine()
    assert one.look(99, view(), 0.0) == Wait(None, ripe=False)
    assert one.look(100, view(), 0.0) == Alone()


def test_one_that_is_behind_and_was_not_in_the_last_step_is_no_company_after_a_moment():
    one = machine()
    one.hear(B, tally(50))
    one.advance(Commit.of(Past(), {ME: 100}, {ME: (1,)}))
    assert one.look(100, view(B), 7.0) == Wait(7.0 + PLACE.brief_s, ripe=True)
    assert one.look(100, view(B), 7.0 + PLACE.brief_s) == Alone()
    one.advance(Commit.of(one.past, {ME: 100}, {ME: (2,)}))
    assert one.look(100, view(B), 20.0) == Alone()  # it was waited for


def test_two_mates_whose_words_are_on_their_way_do_not_both_step_alone():
    first = Commit.of(Past(), {ME: 100}, {ME: (1,)})
    second = Commit.of(first.past, {ME: 100}, {ME: (2,)})
    one, other = machine(second.past), machine(second.past, me=B)
    one.hear(B, tally(0, first.past))
    other.hear(ME, tally(0, first.past))
    for machine_, mate in ((one, B), (other, ME)):
        assert isinstance(machine_.look(100, view(mate), 0.0), Wait)
    one.hear(B, tally(100, second.past))
    assert not isinstance(one.look(100, view(B), 0.1), Alone)


def test_one_that_came_back_is_waited_for_again():
    past = Past().after([1], 100)
    one = machine(past)
    one.hear(B, tally(0))
    assert one.look(100, view(B), 0.0) == Wait(PLACE.brief_s, ripe=True)
    one.hear(B, tally(0, past))
    assert not isinstance(one.look(100, view(B), 5.0), Alone)
    one.hear(B, tally(0))
    assert one.look(100, view(B), 9.0) == Wait(9.0 + PLACE.brief_s, ripe=True)


def test_one_that_took_the_last_step_with_me_is_waited_for():
    one = machine()
    one.hear(B, tally(50))
    one.advance(Commit.of(Past(), {ME: 100, B: 50}, {ME: (1,)}))
    acts = one.look(100, view(B), 0.0), one.look(100, view(B), 4.0)
    [lead] = {act for act in acts if isinstance(act, Lead)}
    assert lead.aim.candidates == (B,)


def test_a_live_peer_that_never_says_where_it_stands_is_called_for_a_while():
    one = machine()
    assert isinstance(one.look(100, view(B), 0.0), Lead)
    one.failed(0.0)
    assert one.look(100, view(B), 0.5) == Wait(1.0, ripe=True)
    assert isinstance(one.look(100, view(B), 1.0), Lead)
    assert one.look(100, view(B), 8.0) == Alone()


def test_who_cannot_be_reached_is_left_alone_and_nobody_steps_without_it():
    one = machine()
    one.hear(B, tally(90))
    one.look(100, view(B), 0.0)
    one.suspect(B, 5.0)
    assert one.look(100, view(B), 5.0) == Wait(9.0, ripe=True)
    assert isinstance(one.look(100, view(B), 9.0), Lead)
    one.suspect(B, 9.0)
    one.hear(B, tally(90))
    assert isinstance(one.look(100, view(B), 9.0), Lead)
    assert one.look(100, view(), 10.0) == Alone()


@pytest.mark.parametrize("mates", [(), (B,)])
def test_at_the_end_of_the_run_what_is_there_is_enough(mates):
    one = machine(stages=2, past=Past(step=3))
    one.hear(B, tally(0, Past(step=3)))
    one.flush = True
    assert one.look(0, view(*mates, s1=1), 0.0) == Wait(None, ripe=False)
    assert one.look(1, view(*mates, s1=1), 10.0) != Wait(None, ripe=False)


def test_a_stage_is_never_two_steps_ahead_of_another():
    one = machine(stages=3, past=Past(step=5))
    for seen in ({}, {"s1": 5}, {"s1": 5, "s2": 4}):
        assert one.look(500, view(**seen), 0.0) == Wait(None, ripe=False)
    for seen in ({"s1": 5, "s2": 5}, {"s1": 6, "s2": 5}):
        assert one.look(500, view(**seen), 0.0) == Alone()


# ---- who --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(12))
def test_exactly_one_leads_at_once_and_calls_all_others(step):
    peers = [ME, B, C, D, E]
    acts = {me: leads(me, [p for p in peers if p != me], step) for me in peers}
    [(leader, act)] = [(me, act) for me, act in acts.items() if isinstance(act, Lead)]
    assert set(act.aim.candidates) == set(peers) - {leader}
    assert (act.aim.size, act.aim.quorum, act.aim.patience_s) == (5, 5, 20.0)
    turns = sorted(act.until for act in acts.values() if isinstance(act, Wait))
    assert turns == [4.0, 8.0, 12.0, 16.0]


def test_the_leader_changes_with_the_step():
    peers = [ME, B, C, D]
    leaders = {
        me
        for step in range(20)
        for me in peers
        if isinstance(leads(me, [p for p in peers if p != me], step), Lead)
    }
    assert leaders == set(peers)


# ---- who missed a step ------------------------------------------------------------------------


def test_a_mate_with_a_greater_past_makes_me_fetch_it():
    mine, theirs = Past().after([1], 100), Past().after([2], 100).after([3], 100)
    one = machine(mine)
    one.hear(B, tally(0, theirs))
    one.hear(C, tally(0, theirs))
    one.hear(D, tally(0, mine))
    assert one.look(0, view(), 0.0) == Wait(None, ripe=False)
    assert one.look(500, view(B, C, D), 0.0) == Resync((B, C))


@pytest.mark.parametrize("seed", range(20))
def test_of_two_pasts_one_gives_way_whoever_asks(seed):
    dice = random.Random(seed)
    one = Past().after([1], dice.choice([100, 120]))
    two = Past().after([2], dice.choice([100, 120]))
    acts = []
    for mine, theirs in ((one, two), (two, one)):
        me = machine(mine)
        me.hear(B, tally(0, theirs))
        acts.append(me.look(0, view(B), 0.0))
    assert sorted(map(type, acts), key=str) == [Resync, Wait]
    if one.committed != two.committed:
        assert isinstance(acts[one.committed > two.committed], Resync)


def test_mates_tell_what_became_of_a_promise():
    commit = Commit.of(Past(), {ME: 60, B: 40}, {ME: (1, 2), B: (3,)})
    one = machine()
    one.hear(B, tally(70))
    assert one.fate(commit, frozenset({B})) is None
    one.hear(C, tally(0, Past().after([9], 100)))
    assert one.fate(commit, frozenset({B, C})) == "dropped"
    one.hear(B, tally(0, commit.past))
    assert one.fate(commit, frozenset({B, C})) == "applied"
    assert one.fate(commit, frozenset()) is None


# ---- the past ---------------------------------------------------------------------------------


def test_a_past_names_its_steps_and_knows_its_samples():
    one, two = Past().after([3, 1], 10).after([2], 5), Past().after([1, 3], 10).after([2], 5)
    assert one == two
    assert (one.step, one.committed) == (2, 15)
    assert [one.counted(sample) for sample in (1, 2, 3, 4)] == [0, 1, 0, None]
    assert one.spoils([9, 3])
    assert not one.spoils([9])
    others = {
        Past().after([1], 10).lineage,
        Past().after([1, 3], 10).after([4], 5).lineage,
        Past().after([1, 3], 10).after([2], 5, "peer 7").lineage,
    }
    assert one.lineage not in others


def test_the_memory_of_a_past_is_bounded():
    past = Past()
    for step in range(KEPT_COMMITS + 10):
        past = past.after([step], 1)
    assert len(past.commits) == KEPT_COMMITS
    assert past.counted(9) is None
    assert past.counted(10) == 10
    big = Past()
    for step in range(30):
        big = big.after(range(step * MAX_CLAIMS, (step + 1) * MAX_CLAIMS), 1)
    assert len(big.commits) == KEPT_SAMPLES // MAX_CLAIMS


def test_a_past_travels_and_a_false_one_is_refused():
    past = Past().after([2**64 - 1, 5], 10).after([7], 3)
    said = msgpack.unpackb(msgpack.packb(past.pack()))
    assert Past.unpack(said) == past
    assert Past.unpack(msgpack.unpackb(msgpack.packb(Past().pack()))) == Past()
    lies = (
        {"step": -1},
        {"step": "1"},
        {"committed": 2**62},
        {"lineage": "xyz"},
        {"lineage": 7},
        {"commits": [[0, 10**12]]},
        {"commits": [[0, b"1234567"]]},
        {"commits": [[0, bytes(16)]]},
        {"commits": [[0, bytes(8)]] * (KEPT_COMMITS + 1)},
        {"commits": [[0]]},
        {"commits": None},
    )
    for lie in lies:
        with pytest.raises(PayloadError):
            Past.unpack(said | lie)
    for nothing in (None, [], {}, 5):
        with pytest.raises(PayloadError):
            Past.unpack(nothing)


# ---- claims -----------------------------------------------------------------------------------


def test_claims_are_packed_in_order():
    ids = (2**64 - 1, 0, 7)
    assert unpack(pack(ids)) == tuple(sorted(ids))
    assert unpack(b"") == ()
    for packed in (b"1234567", pack([1]) * 2, pack([2]) + pack([1])):
        with pytest.raises(MessageError):
            unpack(packed)
    with pytest.raises(ValueError, match="at most"):
        pack(range(MAX_CLAIMS + 1))


def test_of_two_that_claim_the_same_the_one_with_fewer_goes():
    claims = {ME: (1, 2), B: (2, 3, 4), C: (5,), D: (5,), E: ()}
    assert colliding([ME, B, C, D, E], claims, lambda sample: False) == {ME, D}
    assert colliding([D, C], claims, lambda sample: False) == {C}
    assert colliding([ME, B, C], claims, lambda sample: sample == 3) == {B}


@pytest.mark.parametrize("seed", range(50))
def test_what_counts_has_no_sample_twice_and_nobody_is_refused_for_nothing(seed):
    dice = random.Random(seed)
    members = [f"m{i}" for i in range(dice.randrange(1, 9))]
    claims = {m: tuple(sorted(dice.sample(range(30), dice.randrange(8)))) for m in members}
    before = set(dice.sample(range(30), 3))
    refused = colliding(members, claims, before.__contains__)
    counted = [sample for m in members if m not in refused for sample in claims[m]]
    assert len(counted) == len(set(counted))
    assert before.isdisjoint(counted)
    for m in refused:
        assert not set(claims[m]).isdisjoint({*counted, *before})


# ---- claims in a meeting ----------------------------------------------------------------------


def leader(members=(ME, B, C), parts=5, committed=(), whole=True):
    numbers = iter(range(100, 200))
    book = Book(ME, Decisions(), lambda: next(numbers), set(committed).__contains__)
    return GroupLeader(Seating(members, parts, whole), book, 2.0, 0.0)


def hold_all(machine_, claims, works=None):
    """All hold all; the leader's decision."""
    words = []
    seats = tuple(range(len(machine_.seating.members)))
    for peer in machine_.seating.members:
        ids = claims.get(peer, ())
        work = 10 * len(ids) if works is None else works[peer]
        got = Got(holds=seats, work=work, done=True, claims=pack(ids))
        words = machine_.on_frame(peer, got.frame(), 1.0)
    return Decide.parse(words[0].frame)


def test_who_collides_weighs_nothing_and_stays():
    decide = hold_all(leader(), {ME: (1, 2), B: (2, 3, 4), C: (5,)})
    assert decide.seats == (0, 1, 2)
    assert decide.works == (0, 30, 10)
    assert decide.claims == (b"", pack((2, 3, 4)), pack((5,)))
    decide = hold_all(leader(committed=[4]), {ME: (1, 2), B: (2, 3, 4), C: (5,)})
    assert decide.works == (20, 0, 10)


def test_later_words_do_not_change_a_claim():
    one = leader()
    for claims in ((1,), (2,)):
        got = Got(holds=(1,), work=10, done=False, claims=pack(claims))
        one.on_frame(B, got.frame(), 0.5)
    decide = hold_all(one, {ME: (7,), B: (3,), C: (9,)})
    assert decide.claims[1] == pack((1,))


def test_a_meeting_where_nothing_weighs_comes_to_nothing():
    one = leader(committed=range(10))
    assert hold_all(one, {ME: (1, 2), B: (3,), C: (4,)}).seats == ()
    assert one.end is End.FAILED
    one = leader()
    assert hold_all(one, {}).seats == ()
    assert hold_all(leader(whole=False), {}).seats == (0, 1, 2)


def test_no_decision_leaves_out_the_owner_of_a_part():
    members = (ME, B, C, D, E)
    for parts, seats in ((5, ()), (4, (0, 1, 2, 3))):
        one = leader(members, parts)
        hold_all(one, {peer: (i,) for i, peer in enumerate(members)})
        words = one.gone(E, "cut", 2.0)
        assert Decide.parse(words[0].frame).seats == seats
        assert (one.end is End.FAILED) == (seats == ())
    one = leader(members, 5, whole=False)
    hold_all(one, {})
    assert Decide.parse(one.gone(E, "cut", 2.0)[0].frame).seats == (0, 1, 2, 3)


def member(mine=(1, 2)):
    one = GroupMember(B, Seating((ME, B, C), 1, True), 20, lambda part: 4, mine)
    [got] = one.start()
    assert Got.parse(got.frame).claims == pack(mine)
    for peer in (ME, C):
        [got] = one.on_part(peer, memoryview(b"1234"))
        assert Got.parse(got.frame).claims == b""
    return one


def decide(number, works, claims):
    seats = tuple(range(len(works)))
    return Decide(number=number, seats=seats, works=works, claims=tuple(map(pack, claims))).frame()


def test_a_member_knows_what_was_claimed_and_holds_the_leader_to_its_own():
    one = member()
    assert one.on_frame(decide(5, (10, 20, 10), ((7,), (1, 2), (9,)))) == [Task.BLEND]
    assert one.claims == {ME: (7,), B: (1, 2), C: (9,)}
    assert one.on_frame(decide(6, (10, 0, 10), ((7,), (), (9,)))) == [Task.BLEND]
    assert one.superseded == [5]
    for works, claims in (
        ((10, 20, 10), ((7,), (1,), (9,))),
        ((10, 20, 10), ((7,), (), (9,))),
        ((10, 20, 10), ((7,), (1, 2), (7,))),
        ((10, 20, 10), ((7,), (1, 2))),
    ):
        with pytest.raises(MessageError):
            member().on_frame(decide(7, works, claims))


def test_a_member_knows_which_decisions_can_never_be_committed():
    one = member()
    one.on_frame(decide(5, (10, 20, 10), ((7,), (1, 2), (9,))))
    one.lost("cut")
    assert one.superseded == [5]
    one = member()
    one.on_frame(decide(5, (10, 20, 10), ((7,), (1, 2), (9,))))
    one.blended(5)
    [said] = one.finished(5)
    assert Have.parse(said.frame).round == 5
    one.lost("cut")
    assert (one.end, one.superseded) == (End.PENDING, [])
    one = member()
    one.on_frame(decide(5, (10, 20, 10), ((7,), (1, 2), (9,))))
    one.blended(5)
    one.finished(5)
    one.on_frame(CommitFrame(number=5).frame())
    one.lost("late")
    assert (one.end, one.superseded) == (End.APPLIED, [])
