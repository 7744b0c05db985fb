"""A model of two peers, their streams and a ledger: the world that the pair machines live in.

The real machines and the real ledger are driven the way the session and the driver do it, one
event at a time; a shell may read on while it checks a payload, or wait. Faults: a partner that
cannot be reached, memory that cannot be reserved, a cut of the stream that keeps any number of the
frames in flight either way, a deadline on either side while frames are still under way, a verify
that fails, a crash of either side, a restart of the acceptor with its ledger or without, the same
round offered again on a second stream, an ASK at any time, an ASK whose answer is lost. An offer
may be held for any time before it is answered.
"""

import itertools
from collections import deque
from dataclasses import dataclass, field

from swarmnet.exchange.ledger import Decisions
from swarmnet.exchange.pair import Acceptor, Do, End, Offerer, Send
from swarmnet.exchange.states import State
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Accept, Decline, Hold, Offer

ANN = "peerAnnAnn"
ROUND = 7
PART = Frame(Kind.PART, b"1234")
NBYTES = 2 * len(PART.body)
OFFER = Offer(round=ROUND, phase="train", index=0, layout="ab", nbytes=NBYTES)
ACCEPT = Accept(round=ROUND, nbytes=NBYTES)


class Heap:
    full = False


def reserve(nbytes):
    assert nbytes == NBYTES
    if Heap.full:
        raise MemoryError
    return bytearray(nbytes)


def twin_of(thing):
    """A shallow copy; ``copy.copy`` would be most of the search's time."""
    twin = object.__new__(type(thing))
    twin.__dict__.update(thing.__dict__)
    return twin


@dataclass
class Side:
    """One end of one stream: a machine in its session, until it closed."""

    machine: Offerer | Acceptor | None = None
    held: Frame | None = None
    """The offer that waits for an acceptor's window to open."""
    verifying: bool = False
    closed: bool = False

    def key(self):
        m = self.machine
        if m is None or self.closed:  # how it came to be closed changes nothing any more
            return (self.closed, self.held is not None)
        return (m.state, m.filled, self.verifying)


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
            yield (True, "open_in_vain")
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
            if side.held is not None:
                yield (False, "open_window", i)
            if queue and queue[0].kind is Kind.OFFER:
                yield (True, "hold", i)
            if queue:
                yield (False, "deliver", i, name)
                yield (True, "starve", i, name)
            # Beside a deadline, and a payload that is unsound, it may see the stream's end.
            at_its_end = (stream.cut or other.closed) and not queue and not side.verifying
            yield (not at_its_end, "lose", i, name)
        if not stream.cut and not stream.over:
            kept = range(len(stream.to_offerer) + 1), range(len(stream.to_acceptor) + 1)
            for left, right in itertools.product(*kept):
                yield (True, "cut", i, left, right)

    def open(self):
        machine = Offerer(OFFER, reserve)
        self.streams.append(Stream(Side(machine)))
        self._perform(len(self.streams) - 1, "offerer", machine.start())

    def open_in_vain(self):
        machine = Offerer(OFFER, reserve)
        machine.lost("cannot be reached")
        assert machine.end is End.FAILED

    def starve(self, i, name):
        """The next frame is delivered while there is no memory for a payload."""
        Heap.full = True
        try:
            self.deliver(i, name)
        except MemoryError:
            self.lose(i, name)
        finally:
            Heap.full = False

    def deliver(self, i, name):
        stream = self.streams[i]
        frame, *rest = getattr(stream, f"to_{name}")
        setattr(stream, f"to_{name}", tuple(rest))
        side = getattr(stream, name)
        if side.machine is None:
            self._answer(i, frame)
        else:
            self._perform(i, name, side.machine.on_frame(frame))

    def hold(self, i):
        stream = self.streams[i]
        stream.acceptor.held, *rest = stream.to_acceptor
        stream.to_acceptor = tuple(rest)
        self._send(i, "acceptor", Hold(round=ROUND).frame())

    def open_window(self, i):
        side = self.streams[i].acceptor
        frame, side.held = side.held, None
        self._answer(i, frame)

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
        side = getattr(self.streams[i], name)
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
        assert side.machine.filled <= NBYTES

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
        side.closed, side.verifying, side.held = True, False, None
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
        return any(side.machine.state is State.UNSURE for side in offerers)


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
