"""What the pure parts of a group meeting decide, one fact at a time."""

import random

import pytest

from swarmnet.errors import MessageError, PayloadError
from swarmnet.exchange.gather import Aim, Gathering
from swarmnet.exchange.group import MAX_DECISIONS, Book, GroupLeader, Seating, agreeing
from swarmnet.exchange.groupmember import GroupMember, Say, Task
from swarmnet.exchange.ledger import Decisions
from swarmnet.exchange.pair import End
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Commit, Decide, Got, Have

A, B, C, D, E = (f"peer{letter * 8}" for letter in "ABCDE")
ALL = {0, 1, 2, 3}


def leader(members=(A, B, C, D), now=0.0):
    numbers = iter(range(100, 200))
    decisions = Decisions()
    book = Book(A, decisions, lambda: next(numbers))
    return GroupLeader(Seating(members, 5), book, 2.0, now), decisions


def got(*seats, done=True, work=1):
    return Got(holds=tuple(sorted(seats)), work=work, done=done).frame()


def have(number):
    return Have(round=number).frame()


def decided(words):
    [decide] = {word.frame.body: Decide.parse(word.frame) for word in words}.values()
    return decide.number, decide.seats, [word.peer for word in words]


def gathered(machine, members, now=1.0):
    """All hold all of these seats; returns what the last word led to."""
    words = []
    for peer in members:
        words = machine.on_frame(peer, got(*ALL), now)
    return words


# ---- the leader -------------------------------------------------------------------------------


def test_the_leader_commits_once_with_the_word_of_all():
    machine, ledger = leader()
    number, seats, told = decided(gathered(machine, (A, B, C, D)))
    assert (seats, told) == ((0, 1, 2, 3), [A, B, C, D])
    for peer in (A, B, C):
        assert machine.on_frame(peer, have(number), 2.0) == []
        assert machine.on_frame(peer, have(number), 2.0) == []
    words = machine.on_frame(D, have(number), 2.0)
    assert [word.peer for word in words] == [A, B, C, D]
    assert {Commit.parse(word.frame).number for word in words} == {number}
    assert ledger.known(A, number) == "applied"
    assert machine.gone(B, "late", 3.0) == machine.on_frame(C, have(number), 3.0) == []
    assert machine.end is End.APPLIED


def test_a_member_lost_between_decision_and_commit_is_decided_away():
    machine, ledger = leader()
    first, _, _ = decided(gathered(machine, (A, B, C, D)))
    machine.on_frame(C, have(first), 2.0)
    second, seats, told = decided(machine.gone(C, "cut", 2.0))
    assert (seats, told) == ((0, 1, 3), [A, B, D])
    assert ledger.known(A, first) == "dropped"
    for peer in (A, B, D):
        assert machine.on_frame(peer, have(first), 2.5) == []  # of the decision before
    for peer in (A, B):
        machine.on_frame(peer, have(second), 3.0)
    assert len(machine.on_frame(D, have(second), 3.0)) == 3
    assert machine.removed == {C: "cut"}


def test_who_finds_a_contribution_unsound_makes_the_leader_decide_again():
    machine, _ = leader()
    gathered(machine, (A, B, C, D))
    _, seats, _ = decided(machine.on_frame(B, got(0, 1, 3), 2.0))
    assert seats in ((0, 1, 3), (0, 2, 3))


def test_two_are_the_least_and_nobody_is_left_waiting():
    machine, ledger = leader((A, B))
    machine.on_frame(A, got(0, done=False), 1.0)
    number, seats, told = decided(machine.gone(B, "cut", 1.0) or machine.on_frame(A, got(0), 1.0))
    assert (seats, told) == ((), [A])
    assert ledger.known(A, number) == "dropped"
    assert machine.end is End.FAILED


def test_decisions_are_bounded():
    members = (A, B, C, D, E, *(f"peer{letter * 8}" for letter in "FGHJK"))
    machine, _ = leader(members)
    for peer in members:
        machine.on_frame(peer, got(*range(10)), 1.0)
    for peer in members[:0:-1][:MAX_DECISIONS]:
        assert machine.end is None
        machine.gone(peer, "cut", 2.0)
    assert machine.end is End.FAILED


def test_stragglers_get_as_long_again_and_some_patience():
    machine, _ = leader(now=10.0)
    for peer, held in ((A, (0, 1, 2)), (B, (0, 1, 2))):
        machine.on_frame(peer, got(*held, done=False), 13.0)
    assert machine.deadline == 13.0 + 3.0 + 2.0
    machine.on_frame(C, got(0, 1, 2, done=False), 14.0)
    assert machine.tick(17.9) == []
    number, seats, told = decided(machine.tick(18.0))
    assert (seats, told) == ((0, 1, 2), [A, B, C, D])
    machine.on_frame(A, have(number), 19.0)
    machine.on_frame(B, have(number), 20.0)
    assert machine.deadline == 20.0 + 2.0 + 2.0
    _, seats, told = decided(machine.tick(24.0))
    assert (seats, told) == ((0, 1), [A, B, C, D])


def test_members_that_beat_and_never_speak_cannot_keep_the_others():
    machine, _ = leader()
    for peer in (A, B, C, D):
        machine.on_frame(peer, got(*ALL), 1.0)
    assert machine.deadline == 1.0 + 4 * (1.0 + 2.0)
    _, seats, told = decided(machine.tick(13.0))
    assert (seats, told) == ((), [A, B, C, D])
    machine, _ = leader()
    machine.on_frame(A, got(0), 6.0)
    assert machine.deadline == 6.0 + 6.0 + 2.0
    assert machine.tick(14.0)
    assert machine.end is End.FAILED


def test_the_leader_refuses_what_no_member_says():
    machine, _ = leader()
    for frame in (got(0, 4), Frame(Kind.PART, b"1"), Commit(number=1).frame()):
        with pytest.raises(MessageError):
            machine.on_frame(B, frame, 1.0)


def test_a_leader_that_leaves_never_commits():
    machine, ledger = leader()
    number, _, _ = decided(gathered(machine, (A, B, C, D)))
    machine.cancel()
    assert ledger.known(A, number) == "dropped"
    for peer in (A, B, C, D):
        assert machine.on_frame(peer, have(number), 2.0) == []


@pytest.mark.parametrize("seed", range(50))
def test_the_agreeing_set_is_one_and_nobody_could_be_added(seed):
    dice = random.Random(seed)
    members = [f"m{i}" for i in range(dice.randrange(2, 12))]
    holds = {m: {m, *(o for o in members if dice.random() < 0.85)} for m in members}
    chosen = agreeing(members, holds)
    assert all(holds[m].issuperset(chosen) for m in chosen)
    assert list(chosen) == [m for m in members if m in chosen]
    assert chosen


def test_one_who_holds_nobody_and_is_held_by_nobody_costs_only_itself():
    members = [f"m{i}" for i in range(9)]
    for lost in members:
        holds = {m: {m} if m == lost else set(members) - {lost} for m in members}
        assert set(agreeing(members, holds)) == set(members) - {lost}


# ---- a member ---------------------------------------------------------------------------------


def member(me=B, members=(A, B, C), parts=2):
    return GroupMember(me, Seating(members, parts), 7, lambda part: 4)


def feed(machine, peer, parts=2):
    acts = []
    for _ in range(parts):
        acts = machine.on_part(peer, memoryview(b"1234"))
    return acts


def decide(number, *seats):
    return Decide(number=number, seats=seats, works=(1,) * len(seats)).frame()


def ready(number=5):
    machine = member()
    machine.start()
    feed(machine, A)
    feed(machine, C)
    assert machine.on_frame(decide(number, 0, 1, 2)) == [Task.BLEND]
    assert machine.blended(number) == [Task.FINISH]
    return machine


def test_a_member_tells_what_it_holds_and_when_no_more_comes():
    machine = member()
    [first] = machine.start()
    assert Got.parse(first.frame) == Got(holds=(1,), work=7, done=False)
    [more] = feed(machine, A)
    assert Got.parse(more.frame) == Got(holds=(0, 1), work=7, done=False)
    [last] = machine.lane_lost(C)
    assert Got.parse(last.frame) == Got(holds=(0, 1), work=7, done=True)
    assert machine.lane_lost(C) == machine.lane_lost(A) == []


def test_have_comes_after_the_arithmetic_and_commit_after_have():
    machine = ready()
    with pytest.raises(MessageError):
        machine.on_frame(Commit(number=5).frame())
    [said] = machine.finished(5)
    assert isinstance(said, Say)
    assert Have.parse(said.frame).round == 5
    with pytest.raises(MessageError):
        machine.on_frame(Commit(number=6).frame())
    machine.on_frame(Commit(number=5).frame())
    assert machine.end is End.APPLIED
    machine.lost("late")
    assert machine.end is End.APPLIED


@pytest.mark.parametrize("said", [False, True])
def test_a_member_is_pending_from_its_have_on(said):
    machine = ready()
    if said:
        machine.finished(5)
    machine.lost("cut")
    assert machine.end is (End.PENDING if said else End.FAILED)


def test_the_leaders_own_seat_is_never_pending():
    machine = member(me=A)
    machine.start()
    feed(machine, B)
    feed(machine, C)
    machine.on_frame(decide(5, 0, 1, 2))
    machine.blended(5)
    assert machine.finished(5)
    machine.lost("stopped")
    assert machine.end is End.FAILED


def test_a_new_decision_ends_the_word_given_for_the_one_before():
    machine = ready()
    machine.finished(5)
    assert machine.on_frame(decide(6, 0, 1)) == [Task.BLEND]
    assert machine.finished(5) == machine.blended(5) == []
    machine.lost("cut")
    assert machine.end is End.FAILED


def test_removed_members_and_empty_decisions_end_without_a_question():
    for seats in ((0, 2), ()):
        machine = ready()
        machine.finished(5)
        assert machine.on_frame(decide(6, *seats)) == []
        assert machine.end is End.FAILED


def test_an_owner_whose_lane_broke_cannot_serve_a_later_decision():
    members = (A, B, C, D, E)
    machine = member(B, members, parts=5)
    machine.start()
    for peer in (A, C, D, E):
        feed(machine, peer, 1)
    machine.on_frame(decide(5, 0, 1, 2, 3, 4))
    machine.blended(5)
    for peer in (A, C, D):
        machine.adopted(peer, 5)
    assert machine.adopted(E, 5) == [Task.FINISH]
    assert machine.means_lost(C) == []  # its means are here
    [said] = machine.on_frame(decide(6, 0, 1, 2, 3))
    assert C not in {members[seat] for seat in Got.parse(said.frame).holds}


def test_a_decision_cannot_go_back_and_parts_fit():
    machine = ready()
    for frame in (decide(5, 0, 1), decide(4, 0, 1), decide(7, 0, 1, 3)):
        with pytest.raises(MessageError):
            machine.on_frame(frame)
    machine = member()
    for body in (b"", b"123", b"12345"):
        with pytest.raises(PayloadError):
            machine.on_part(A, memoryview(body))
    feed(machine, A)
    with pytest.raises(PayloadError):
        machine.on_part(A, memoryview(b"1234"))


# ---- the call ---------------------------------------------------------------------------------


def test_calls_fill_the_seats_and_alternates_come_before_repetitions():
    gathering = Gathering(Aim((A, B, C, D), size=3, quorum=3, patience_s=10), 0.0)
    assert gathering.invite(0.0) == [A, B]
    assert gathering.invite(0.0) == []
    gathering.declined(A, 0.5)
    gathering.lost(B)
    assert gathering.invite(1.0) == [C, D]
    assert gathering.next_at() == 10.0  # all seats are asked for: A's time is no news
    gathering.join(C, 1.0)
    gathering.lost(D)
    assert gathering.next_at() == 0.5
    assert gathering.invite(1.0) == [A]
    assert not gathering.closed(9.9)
    gathering.join(A, 2.0)
    assert gathering.closed(2.0)


def test_beyond_the_quorum_others_get_as_long_again():
    gathering = Gathering(Aim((A, B, C), size=4, quorum=2, patience_s=10), 5.0)
    gathering.invite(5.0)
    gathering.join(A, 6.5)
    assert not gathering.closed(7.9)
    assert gathering.closed(8.0)


def test_a_call_ends_when_nobody_is_left_to_ask():
    gathering = Gathering(Aim((A, B), size=3, quorum=3, patience_s=10), 0.0)
    gathering.invite(0.0)
    gathering.join(A, 0.1)
    gathering.lost(B)
    assert gathering.closed(0.2)
    gathering.lost(A)
    assert gathering.joined == []
