"""Every reachable state of the two-party protocol, and what the machines refuse.

The search drives the real machines and the real ledger the way the session and the driver do, one
event at a time, in every order. Faults: a cut of the stream that keeps any number of the frames in
flight either way, a deadline on either side while frames are still under way, a verify that fails,
a crash of either side, a restart of the acceptor with its ledger or without, the same round
offered again on a second stream, an ASK at any time, an ASK whose answer is lost.
About 35,000 states and 283,000 events are explored (a minimum is asserted below).
"""

import itertools
from collections import deque
from dataclasses import dataclass, field

import msgpack
import pytest

from swarmnet.errors import MessageError, PayloadError, PeerFault
from swarmnet.exchange.ledger import Decisions
from swarmnet.exchange.pair import Acceptor, Do, End, Offerer, Send
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Accept, Decline, Have, Offer

ANN = "peerAnnAnn"
ROUND, OTHER_ROUND = 7, 8
PART = Frame(Kind.PART, b"1234")
NBYTES = 2 * len(PART.body)
OFFER = Offer(round=ROUND, phase="train", index=0, layout="ab", nbytes=NBYTES)
ACCEPT = Accept(round=ROUND, nbytes=NBYTES)
HAVE = Have(round=ROUND).frame()
MIN_STATES = 30_000


def never():
    raise AssertionError("the ledger was asked too early")


def reserve(nbytes):
    assert nbytes == NBYTES
    return bytearray(nbytes)


def twin_of(thing):
    """A shallow copy; ``copy.copy`` would be most of the search's time."""
    twin = object.__new__(type(thing))
    twin.__dict__.update(thing.__dict__)
    return twin


# ---- the model ------------------------------------------------------------------------------


@dataclass
class Side:
    """One end of one stream: a machine in its session, until it closed."""

    machine: Offerer | Acceptor | None = None
    verifying: bool = False
    closed: bool = False

    def key(self):
        m = self.machine
        if m is None or self.closed:  # how it came to be closed changes nothing any more
            return self.closed
        own = (m.accept is not None, m._have_sent) if isinstance(m, Offerer) else (m._sound,)
        said = getattr(m, "_have_received", None)
        return (m.end, m.filled, own, said, self.verifying)


@dataclass
class Stream:
    """Frames in flight towards either side; what is left after a cut still arrives."""

    offerer: Side
    acceptor: Side = field(default_factory=Side)
    to_offerer: tuple[Frame, ...] = ()
    to_acceptor: tuple[Frame, ...] = ()
    cut: bool = False

    @property
    def over(self):
        return self.offerer.closed and self.acceptor.closed

    def key(self):
        flight = tuple(f.kind for f in self.to_offerer), tuple(f.kind for f in self.to_acceptor)
        return (self.offerer.key(), self.acceptor.key(), *flight, self.cut)


class World:
    """Offerer, acceptor, ledger, up to two streams, and a history to judge by."""

    def __init__(self):
        self.ledger = Decisions()
        self.streams: list[Stream] = []
        self.offerer_up = self.acceptor_up = True
        self.restarted = False
        self.ledger_lost = False
        self.pending = False
        self.offerer_applied = False
        self.acceptor_applied = False
        self.ever_applied = False
        self.tell = None

    def key(self):
        return (
            tuple(self.ledger._decided.values()),
            bool(self.ledger._open),
            len(self.streams),
            tuple(s.key() for s in self.streams if not s.over),
            self.offerer_up,
            self.acceptor_up,
            self.restarted,
            self.ledger_lost,
            self.pending,
            self.offerer_applied,
            self.acceptor_applied,
            self.ever_applied,
            self.tell,
        )

    def clone(self):
        new = twin_of(self)
        new.ledger = Decisions()
        new.ledger._decided = self.ledger._decided.copy()
        new.ledger._open = self.ledger._open.copy()
        new.streams = []
        for stream in self.streams:
            if stream.over:
                new.streams.append(stream)
                continue
            twin = twin_of(stream)
            twin.offerer, twin.acceptor = twin_of(stream.offerer), twin_of(stream.acceptor)
            for side in (twin.offerer, twin.acceptor):
                side.machine = side.machine and twin_of(side.machine)
            if twin.acceptor.machine is not None:
                twin.acceptor.machine._commit = new.commit
            new.streams.append(twin)
        return new

    def commit(self):
        return self.ledger.commit(ANN, ROUND)

    # ---- events: each is (name, arguments); ``fault`` ones may but need not happen ----------

    def events(self):
        for i, stream in enumerate(self.streams):
            yield from self._stream_events(i, stream)
        if len(self.streams) < 2 and self.offerer_up and self.acceptor_up:
            yield (bool(self.streams), "open")
        if self.acceptor_up:
            yield (True, "stray_ask")
            if self.pending and self.tell is None and self.offerer_up:
                yield (False, "ask")
            if not self.restarted:
                yield (True, "crash_acceptor")
        else:
            yield (False, "restart", True)
            yield (False, "restart", False)
        if self.tell is not None:
            yield (False, "told")
            yield (True, "tell_lost")
        if self.offerer_up:
            yield (True, "crash_offerer")

    def _stream_events(self, i, stream):
        for name, queue, other in (
            ("offerer", stream.to_offerer, stream.acceptor),
            ("acceptor", stream.to_acceptor, stream.offerer),
        ):
            side = getattr(stream, name)
            if side.closed:
                continue
            if side.verifying:
                yield (False, "verified", i, name)
                yield (True, "lose", i, name)  # the payload is unsound
            elif queue:
                yield (False, "deliver", i, name)
                yield (True, "lose", i, name)  # a deadline
            elif stream.cut or other.closed:
                yield (False, "lose", i, name)  # it sees the end of the stream
            else:
                yield (True, "lose", i, name)  # a deadline
        if not stream.cut and not stream.over:
            kept = range(len(stream.to_offerer) + 1), range(len(stream.to_acceptor) + 1)
            for left, right in itertools.product(*kept):
                yield (True, "cut", i, left, right)

    def open(self):
        machine = Offerer(OFFER, reserve)
        self.streams.append(Stream(Side(machine)))
        self._perform(len(self.streams) - 1, "offerer", machine.start())

    def deliver(self, i, name):
        stream = self.streams[i]
        frame, *rest = getattr(stream, f"to_{name}")
        setattr(stream, f"to_{name}", tuple(rest))
        side = getattr(stream, name)
        if side.machine is None:
            self._answer(i, frame)
        else:
            self._perform(i, name, side.machine.on_frame(frame))

    def _answer(self, i, frame):
        """What the driver does with an offer."""
        offer = Offer.parse(frame)
        known = self.ledger.known(ANN, offer.round)
        side = self.streams[i].acceptor
        if known is not None or not self.ledger.begin(ANN, offer.round):
            self._send(i, "acceptor", Decline(reason=known or "busy", retry_s=0.0).frame())
            return
        side.machine = Acceptor(offer, ACCEPT, self.commit, reserve)
        self._perform(i, "acceptor", side.machine.start())

    def verified(self, i, name):
        side = getattr(self.streams[i], name)
        side.verifying = False
        self._perform(i, name, side.machine.verified())

    def lose(self, i, name):
        stream = self.streams[i]
        machine = getattr(stream, name).machine
        if machine is not None:
            machine.lost("lost")
        self._close(i, name)

    def cut(self, i, left, right):
        stream = self.streams[i]
        stream.cut = True
        stream.to_offerer = stream.to_offerer[:left]
        stream.to_acceptor = stream.to_acceptor[:right]

    def ask(self):
        self.tell = self.ledger.tell(ANN, ROUND)

    def stray_ask(self):
        self.ledger.tell(ANN, ROUND)

    def told(self):
        if self.tell == "applied":
            self.offerer_applied = True
        self.pending, self.tell = False, None

    def tell_lost(self):
        self.tell = None

    def crash_acceptor(self):
        """What was sent before may still arrive; a cut may take it as well."""
        self.acceptor_up, self.restarted = False, True
        for stream in self.streams:
            stream.acceptor = Side(closed=True)
            stream.to_acceptor = ()

    def restart(self, ledger_kept):
        """From a checkpoint written after the last meeting, or from one before it."""
        self.acceptor_up = True
        self.ledger._open.clear()
        if not ledger_kept:
            self.ledger = Decisions()
            self.ledger_lost, self.acceptor_applied = True, False

    def crash_offerer(self):
        self.offerer_up, self.pending, self.tell = False, False, None
        for stream in self.streams:
            stream.offerer = Side(closed=True)
            stream.to_offerer = ()

    # ---- the session's part -------------------------------------------------------------------

    def _perform(self, i, name, actions):
        stream, other = self.streams[i], {"offerer": "acceptor", "acceptor": "offerer"}[name]
        side = getattr(stream, name)
        for action in actions:
            match action:
                case Send(frame):
                    self._send(i, name, frame)
                case Do.SEND_PAYLOAD:
                    self._send(i, name, PART, PART)
                case Do.VERIFY:
                    side.verifying = True
                case Do.APPLY:
                    self._apply(name)
                case Do.CLOSE:
                    self._close(i, name)
                case Do.AWAIT_CLOSE:
                    pass
        assert side.machine.filled <= NBYTES, other

    def _send(self, i, name, *frames):
        stream = self.streams[i]
        if stream.cut:
            return
        if name == "offerer" and not stream.acceptor.closed:
            stream.to_acceptor += frames
        if name == "acceptor" and not stream.offerer.closed:
            stream.to_offerer += frames

    def _apply(self, name):
        if name == "offerer":
            assert self.ever_applied, "the offerer applied what the acceptor had not"
            self.offerer_applied = True
        else:
            assert not self.acceptor_applied, "applied twice"
            self.acceptor_applied = self.ever_applied = True

    def _close(self, i, name):
        stream = self.streams[i]
        side = getattr(stream, name)
        side.closed, side.verifying = True, False
        setattr(stream, f"to_{name}", ())
        machine = side.machine
        if isinstance(machine, Offerer) and machine.end is End.PENDING:
            self.pending = self.pending or not self.offerer_applied
        if isinstance(machine, Acceptor) and machine.end is not End.APPLIED:
            self.ledger.drop(ANN, ROUND)

    # ---- judging -------------------------------------------------------------------------------

    @property
    def at_rest(self):
        """Both sides are done with everything, and no question is open."""
        sides = [side for s in self.streams for side in (s.offerer, s.acceptor)]
        return (
            self.streams and self.acceptor_up and not self.pending and self.tell is None
        ) and all(side.closed for side in sides)

    def check(self):
        for stream in self.streams:
            for side in (stream.offerer, stream.acceptor):
                if side.closed and side.machine is not None:
                    assert side.machine.end is not None
        if self.offerer_applied:
            assert self.ever_applied
        if self.acceptor_applied and self.offerer_up and not self.ledger_lost:
            may_learn = self.offerer_applied or self.pending or self._have_under_way()
            assert may_learn, "the acceptor applied and the offerer will never know"
        if self.at_rest and self.offerer_up and not self.ledger_lost:
            assert self.offerer_applied == self.acceptor_applied

    def _have_under_way(self):
        """The offerer of some stream has said HAVE and is still there to hear or to ask."""
        offerers = [s.offerer for s in self.streams if not s.offerer.closed]
        return any(side.machine._have_sent for side in offerers)


def explore():
    """All worlds by key, and for each the keys that its events without fault lead to."""
    start = World()
    seen = {start.key(): start}
    onward = {}
    events = 0
    queue = deque([start])
    while queue:
        world = queue.popleft()
        ways = onward.setdefault(world.key(), [])
        for fault, name, *arguments in world.events():
            events += 1
            new = world.clone()
            getattr(new, name)(*arguments)
            key = new.key()
            if key not in seen:
                new.check()
                seen[key] = new
                queue.append(new)
            if not fault:
                ways.append(key)
    return seen, onward, events


@pytest.fixture(scope="module")
def graph():
    return explore()


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


OFFERER_AT = {
    "offered": (),
    "accepted": (ACCEPT.frame(),),
    "half": (ACCEPT.frame(), PART),
    "whole": (ACCEPT.frame(), PART, PART),
    "have": (ACCEPT.frame(), PART, PART, None),
}
OFFERER_EXPECTS = {
    "offered": {Kind.ACCEPT, Kind.DECLINE},
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
VALID = {Kind.ACCEPT: ACCEPT.frame(), Kind.DECLINE: DECLINE, Kind.PART: PART, Kind.HAVE: HAVE}


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


def test_have_for_another_round_is_refused():
    wrong = Have(round=OTHER_ROUND).frame()
    for machine in (offerer(*OFFERER_AT["have"]), acceptor(PART, PART, None)):
        with pytest.raises(MessageError):
            machine.on_frame(wrong)
        assert machine.end is None


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
