"""Every reachable state of the two-party protocol, and what the machines refuse.

``pair_world`` is searched to its end: every order of frames and faults, nothing is sampled.
"""

from collections import deque

import msgpack
import pytest

from docs.states import pairs
from swarmnet.errors import MessageError, PayloadError, PeerFault
from swarmnet.exchange.pair import Acceptor, Do, End, Offerer, Send
from swarmnet.exchange.states import ACCEPTOR, ENDS, OFFERER, Event, State
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Accept, Decline, Have, Hold
from tests.unit.pair_world import ACCEPT, NBYTES, OFFER, PART, ROUND, World, explore, reserve

OTHER_ROUND = 8
HAVE = Have(round=ROUND).frame()
MIN_STATES = 30_000
TABLES = {Offerer: OFFERER, Acceptor: ACCEPTOR}


def never():
    raise AssertionError("the ledger was asked too early")


class Used(dict):
    """A machine's own table that remembers which of its rows were taken."""

    def __init__(self, table):
        super().__init__(table)
        self.rows = set()

    def __getitem__(self, key):
        self.rows.add(key)
        return super().__getitem__(key)


@pytest.fixture(scope="module")
def tables():
    return {role: Used(table) for role, table in TABLES.items()}


@pytest.fixture(scope="module")
def graph(tables):
    with pytest.MonkeyPatch.context() as patch:
        for role, table in tables.items():
            patch.setattr(role, "table", table)
        return explore()


@pytest.mark.parametrize("role", TABLES, ids=lambda role: role.__name__)
def test_the_search_takes_every_row_of_the_table(graph, tables, role):
    assert tables[role].rows == set(TABLES[role])


@pytest.mark.parametrize("role", TABLES, ids=lambda role: role.__name__)
def test_a_table_has_a_way_in_and_out_of_each_state_and_none_out_of_an_end(role):
    table = TABLES[role]
    reached = {State.NEW} | {row.to for row in table.values()}
    left = {state for state, _ in table}
    assert reached - left == reached & set(ENDS)
    assert not left & set(ENDS)
    assert left <= reached
    fragile = left - {State.DECIDING}  # the ledger answers before anything else can happen
    assert {state for state, event in table if event is Event.LOST} == fragile


def test_the_pairs_of_states_on_one_stream_are_those_of_the_documents(graph):
    """What docs/failures.md derives from the tables alone, the machines reach under faults."""
    worlds, _, _ = graph
    seen = {
        (s.offerer.machine.state, s.acceptor.machine.state)
        for world in worlds.values()
        for s in world.streams
        if not (s.offerer.closed or s.acceptor.closed) and s.acceptor.machine is not None
    }
    assert seen == {(o, a) for o, a in pairs() if a is not State.NEW}


def test_no_order_of_events_breaks_the_agreement(graph):
    """The invariants are asserted in every state on the way (``World.check`` and ``_apply``)."""
    worlds, _, events = graph
    assert len(worlds) >= MIN_STATES
    assert events >= 4 * MIN_STATES
    outcomes = {(w.offerer_applied, w.acceptor_applied) for w in worlds.values() if w.at_rest}
    assert {(True, True), (False, False)} <= outcomes


def test_every_state_has_a_way_to_an_end_without_another_fault(graph):
    worlds, onward, _ = graph
    back = {}
    for key, ways in onward.items():
        for target in ways:
            back.setdefault(target, []).append(key)
    done = {key for key, world in worlds.items() if world.at_rest}
    queue = deque(done)
    while queue:
        for key in back.get(queue.popleft(), ()):
            if key not in done:
                done.add(key)
                queue.append(key)
    stuck = [key for key in worlds if key not in done and worlds[key].streams]
    assert stuck == []


def test_a_meeting_without_faults_applies_on_both_sides_in_every_order():
    start = World()
    start.open()
    queue, seen = deque([start]), set()
    while queue:
        world = queue.popleft()
        calm = [event for event in world.events() if not event[0]]
        if not calm:
            assert world.offerer_applied
            assert world.acceptor_applied
        for _, name, *arguments in calm:
            new = world.clone()
            getattr(new, name)(*arguments)
            if new.key() not in seen:
                seen.add(new.key())
                queue.append(new)
    assert len(seen) >= 15


# ---- what a machine refuses ----------------------------------------------------------------


def offerer(*frames):
    machine = Offerer(OFFER, reserve)
    machine.start()
    return feed(machine, frames)


def acceptor(*frames, commit=never):
    machine = Acceptor(OFFER, ACCEPT, commit, reserve)
    machine.start()
    return feed(machine, frames)


def feed(machine, frames):
    """``None`` stands for a verify that came out well."""
    for frame in frames:
        if frame is None:
            machine.verified()
        else:
            machine.on_frame(frame)
    return machine


HOLD = Hold(round=ROUND).frame()
OFFERER_AT = {
    "offered": (),
    "held": (HOLD,),
    "accepted": (ACCEPT.frame(),),
    "half": (ACCEPT.frame(), PART),
    "whole": (ACCEPT.frame(), PART, PART),
    "have": (ACCEPT.frame(), PART, PART, None),
}
OFFERER_EXPECTS = {
    "offered": {Kind.ACCEPT, Kind.DECLINE, Kind.HOLD},
    "held": {Kind.ACCEPT, Kind.DECLINE},
    "accepted": {Kind.PART},
    "half": {Kind.PART},
    "whole": set(),
    "have": {Kind.HAVE},
}
ACCEPTOR_AT = {
    "accepted": (),
    "half": (PART,),
    "whole": (PART, PART),
    "sound": (PART, PART, None),
    "have": (PART, PART, HAVE),
}
ACCEPTOR_EXPECTS = {
    "accepted": {Kind.PART},
    "half": {Kind.PART},
    "whole": {Kind.HAVE},
    "sound": {Kind.HAVE},
    "have": set(),
}
DECLINE = Decline(reason="busy", retry_s=1.0).frame()
VALID = {
    Kind.ACCEPT: ACCEPT.frame(),
    Kind.DECLINE: DECLINE,
    Kind.HOLD: HOLD,
    Kind.PART: PART,
    Kind.HAVE: HAVE,
}


def others(expects):
    return [(at, kind) for at, kinds in expects.items() for kind in Kind if kind not in kinds]


@pytest.mark.parametrize(("at", "kind"), others(OFFERER_EXPECTS))
def test_the_offerer_refuses_every_other_kind(at, kind):
    machine = offerer(*OFFERER_AT[at])
    with pytest.raises(PeerFault):
        machine.on_frame(VALID.get(kind, Frame(kind, b"")))
    assert machine.end is None
    machine.lost("fault")
    assert machine.end is (End.PENDING if at == "have" else End.FAILED)


@pytest.mark.parametrize(("at", "kind"), others(ACCEPTOR_EXPECTS))
def test_the_acceptor_refuses_every_other_kind(at, kind):
    machine = acceptor(*ACCEPTOR_AT[at])
    with pytest.raises(PeerFault):
        machine.on_frame(VALID.get(kind, Frame(kind, b"")))
    assert machine.end is None
    machine.lost("fault")
    assert machine.end is End.FAILED


@pytest.mark.parametrize("body", [b"", b"12345678" + b"9", bytes(NBYTES * 100)])
@pytest.mark.parametrize("machine", [offerer(ACCEPT.frame()), acceptor()])
def test_a_part_beyond_the_agreed_size_or_an_empty_one_is_refused(machine, body):
    with pytest.raises(PayloadError):
        machine.on_frame(Frame(Kind.PART, body))
    assert len(machine.received) == NBYTES
    assert machine.filled == 0


@pytest.mark.parametrize("build", [lambda: offerer(ACCEPT.frame(), PART), lambda: acceptor(PART)])
def test_a_part_that_overshoots_leaves_what_was_received(build):
    machine = build()
    with pytest.raises(PayloadError):
        machine.on_frame(Frame(Kind.PART, b"12345"))
    assert machine.filled == len(PART.body)


def test_a_word_on_another_round_is_refused():
    wrong = Have(round=OTHER_ROUND).frame()
    for machine in (offerer(*OFFERER_AT["have"]), acceptor(PART, PART, None)):
        with pytest.raises(MessageError):
            machine.on_frame(wrong)
        assert machine.end is None
    machine = offerer()
    with pytest.raises(MessageError):
        machine.on_frame(Hold(round=OTHER_ROUND).frame())
    assert not machine.held


def test_accept_of_another_size_is_refused_before_anything_is_reserved():
    machine = Offerer(OFFER, reserve=lambda nbytes: never())
    with pytest.raises(MessageError):
        machine.on_frame(Accept(round=ROUND, nbytes=NBYTES + 1).frame())


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", msgpack.packb([ROUND]), msgpack.packb({"round": -1}), msgpack.packb({})],
)
def test_have_without_sense_is_refused(body):
    machine = acceptor(PART, PART, None)
    with pytest.raises(MessageError):
        machine.on_frame(Frame(Kind.HAVE, body))


def test_decline_ends_the_offer_with_the_reason():
    machine = offerer()
    assert machine.on_frame(DECLINE) == [Do.CLOSE]
    assert (machine.end, machine.reason) == (End.DECLINED, "busy")


def test_nothing_changes_an_end():
    machine = offerer(*OFFERER_AT["have"], HAVE)
    machine.lost("late")
    assert machine.end is End.APPLIED
    other = acceptor(PART, PART, None, HAVE, commit=lambda: True)
    other.lost("late")
    assert other.end is End.APPLIED
    for done in (machine, other):
        for frame in (HAVE, PART):
            with pytest.raises(PeerFault):
                done.on_frame(frame)


def test_an_acceptor_whose_round_was_dropped_meanwhile_does_not_apply():
    machine = acceptor(PART, PART, None, commit=lambda: False)
    assert machine.on_frame(HAVE) == [Do.CLOSE]
    assert machine.end is End.FAILED


def test_the_order_of_have_and_verify_does_not_matter_to_the_acceptor():
    first = acceptor(PART, PART, None, commit=lambda: True).on_frame(HAVE)
    second = acceptor(PART, PART, HAVE, commit=lambda: True).verified()
    assert first == second == [Do.APPLY, Send(HAVE), Do.AWAIT_CLOSE]
