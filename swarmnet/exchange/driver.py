"""The shell around the exchange: joins machines, desk and membership to a transport.

It lives in the network's event loop. Every decision it acts on is made elsewhere (``window``,
``pair``, ``ledger``); here is only the order of calls. One meeting at a time per peer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from swarmnet.errors import LinkError, PeerFault
from swarmnet.events import ExchangeDone
from swarmnet.exchange.circle import Circle
from swarmnet.exchange.desk import Desk, Settlement
from swarmnet.exchange.grouphost import Doors, GroupHost, Own
from swarmnet.exchange.ledger import GROUP_ROUNDS, Open
from swarmnet.exchange.links import Links
from swarmnet.exchange.meeting import Meeting, ReceiveBuffer, Scheduled
from swarmnet.exchange.membership import Membership, Status
from swarmnet.exchange.pair import Acceptor, End, Machine, Offerer
from swarmnet.exchange.payload import Incoming, Offload, Outgoing
from swarmnet.exchange.questions import TOPIC as ASK_TOPIC
from swarmnet.exchange.questions import Questions
from swarmnet.exchange.session import Hooks, Session
from swarmnet.exchange.subject import Subject
from swarmnet.exchange.transport import FrameStream, Transport
from swarmnet.exchange.window import RETRY_BUSY_S, CallGroup, GoSolo, OfferTo, Window, refuse
from swarmnet.wire.messages import (
    Accept,
    Decline,
    DeclineReason,
    Digest,
    Hint,
    Offer,
    Phase,
)

TOPIC = "exchange"
ROUND_BITS = 24
"""Rounds are numbered from incarnation << ROUND_BITS, so no restart ever reuses one."""

KEPT_ROUNDS = 32
"""More than the windows for which a partner keeps asking about a round."""

Stance = Literal["syncing", "train", "consensus", "leaving"]


@dataclass(frozen=True)
class Surroundings:
    """What the driver needs from its process."""

    transport: Transport
    membership: Membership
    links: Links
    mine: Callable[[], Status]
    offload: Offload
    emit: Callable[[ExchangeDone], None]
    clock: Callable[[], float] = time.monotonic


class Gossip:
    """One peer's meetings, as offerer and as acceptor, in training and in consensus."""

    def __init__(
        self, around: Surroundings, window: Window, desk: Desk, subject: Subject, incarnation: int
    ) -> None:
        self._around = around
        self._desk = desk
        self._subject = subject
        self.window = window
        self.questions = Questions(around.transport, around.links, self._settle_late)
        self.decisions = self.questions.decisions
        self.pending = self.questions.pending
        self.in_weights: deque[tuple[str, int]] = deque(maxlen=KEPT_ROUNDS)
        """Others' rounds that are in the weights: a checkpoint keeps both or neither."""
        self.stance: Stance = "syncing"
        self.paused = False
        self.scheduled = Scheduled()
        self._round = incarnation << ROUND_BITS
        self._calling: str | None = None
        self._meeting: Meeting | None = None
        self._wake = asyncio.Event()
        self._buffer = ReceiveBuffer()
        self._asked_in = -1
        self._outgoing: Outgoing | None = None
        own = Own(window, desk, subject, self.pending, self.in_weights)
        doors = Doors(
            refusal=self._refusal,
            declining=self._declining,
            heard=self._heard,
            digest=self._digest,
            number=self._next_round,
            wake=self._wake.set,
        )
        self.circle = Circle(around, GroupHost(around, own, doors))
        self.questions.groups = self.circle.answer

    # ---- life -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Serve meetings; from here on the desk's boundaries drive the window."""
        loop = asyncio.get_running_loop()
        await self._around.transport.serve(TOPIC, self._serve)
        await self._around.transport.serve(ASK_TOPIC, self.questions.serve)
        await self.circle.open()

        def wake(step: int, progress: float) -> None:
            with suppress(RuntimeError):  # the loop is closing: nobody is left to wake
                loop.call_soon_threadsafe(self._boundary, step, progress)

        self._desk.wake = wake

    def remember(self, rounds: Iterable[tuple[str, int]]) -> None:
        """After a restart: what the loaded weights hold must be answered as applied."""
        for peer, round_ in rounds:
            self.in_weights.append((peer, round_))
            ledger = self.circle.decisions if round_ >= GROUP_ROUNDS else self.decisions
            ledger.commit(peer, round_)

    def enter_consensus(self) -> None:
        """Training thread, in no meeting: from here on scheduled rounds of pure averaging."""
        self._subject.enter_consensus()
        self._desk.clear()
        self.stance = "consensus"

    async def run(self) -> None:
        """Meet whenever the window is ripe, until cancelled."""
        while True:
            self._wake.clear()
            until = await self._turn()
            timeout = None if until is None else max(0.0, until - self._around.clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()

    @property
    def free(self) -> bool:
        return self._calling is None and self._meeting is None and self.circle.free

    @property
    def can_offer(self) -> bool:
        """Free, and the training thread left a snapshot."""
        return self.free and self._desk.has_snapshot()

    @property
    def _trains(self) -> bool:
        return self.stance == "train" and not self.paused and self.free

    def _boundary(self, step: int, progress: float) -> None:
        self.window.boundary(step, progress, self._around.clock())
        self._wake.set()

    async def _turn(self) -> float | None:
        """Act once; returns when to look again (None: at the next boundary)."""
        if not self._trains:
            return None
        await self._ask_about_pending(self._around.clock())
        if not self._trains or not self._desk.has_snapshot():  # asking took a while
            return None
        now = self._around.clock()
        live = self._around.membership.alive(now, ("training",))
        if self.window.meeting_size(live) > 2:
            return await self._turn_in_group(live, now)
        decision = self.window.next(live, now)
        match decision:
            case OfferTo(peer):
                await self.offer(peer, "train", 0)
                return now
            case GoSolo():
                self._go_solo()
                return now
        return decision.until

    async def _turn_in_group(self, live: list[str], now: float) -> float | None:
        decision = self.window.next_call(live)
        match decision:
            case CallGroup(aim):
                came = await self.circle.lead(aim, "train")
                return None if came is End.DECLINED else now
            case GoSolo():
                self._go_solo()
                return now
        return decision.until

    # ---- as offerer -------------------------------------------------------------------------

    async def offer(self, peer: str, phase: Phase, index: int) -> End:
        """Offer to ``peer`` and see the meeting through. Never raises LinkError or PeerFault."""
        self._round += 1
        meeting = self._new_meeting(phase, peer, self._round)
        self._prepare(meeting)
        offer = Offer(
            round=self._round,
            phase=phase,
            index=index,
            layout=meeting.layout,
            nbytes=self._subject.nbytes,
            work=meeting.work,
            digest=self._digest(),
        )
        machine = Offerer(offer, self._buffer.lend)
        session: Session | None = None
        self._calling = peer
        try:
            deadline_s = self._around.links.deadline_s(peer)
            stream = await self._around.transport.open(peer, TOPIC, deadline_s)
            session = Session(stream, machine, self._hooks(meeting, machine), self._around.links)
            await session.run()
        except LinkError as error:
            machine.lost(str(error))
        finally:
            machine.lost("the exchange was cancelled")
            self._calling = None
            end = self._conclude(meeting, machine, session)
        return end

    # ---- as acceptor ------------------------------------------------------------------------

    async def _serve(self, stream: FrameStream) -> None:
        """A peer opened a stream to us: it offers."""
        links = self._around.links
        peer = stream.peer
        try:
            offer = Offer.parse(await stream.receive(links.deadline_s(peer)))
            self._heard(peer, offer.digest)
            reason = self._refusal(peer, offer) or (None if self.circle.free else "busy")
            if reason is None:
                await self._accept(stream, offer)
                return
            decline = self._declining(peer, reason)
            await stream.send(decline.frame(), links.deadline_s(peer))
            with suppress(LinkError, PeerFault):
                await stream.receive(links.deadline_s(peer))  # the offerer reads last and closes
        finally:
            await stream.close()

    async def _accept(self, stream: FrameStream, offer: Offer) -> None:
        peer = stream.peer
        meeting = self._new_meeting(offer.phase, peer, offer.round)
        self._prepare(meeting)
        accept = Accept(
            round=offer.round,
            nbytes=self._subject.nbytes,
            work=meeting.work,
            digest=self._digest(),
        )

        def commit() -> bool:
            return self.decisions.commit(peer, offer.round)

        machine = Acceptor(offer, accept, commit, self._buffer.lend)
        session = Session(stream, machine, self._hooks(meeting, machine), self._around.links)
        self._meeting = meeting
        self.decisions.begin(peer, offer.round)
        try:
            await session.run()
        finally:
            if machine.end is not End.APPLIED:
                self.decisions.drop(peer, offer.round)
            self._conclude(meeting, machine, session)
            self._wake.set()

    def _refusal(self, peer: str, offer: Offer) -> DeclineReason | None:
        decided = self.decisions.known(peer, offer.round)
        if decided is not None:
            return decided
        if self.stance in ("syncing", "leaving"):
            return "syncing" if self.stance == "syncing" else "leaving"
        if offer.phase != self.stance:
            return "phase"
        if (offer.layout, offer.nbytes) != (self._subject.layout, self._subject.nbytes):
            return "layout"
        if self.stance == "consensus":
            if (offer.index, peer) != (self.scheduled.index, self.scheduled.partner):
                return "index"
            return None if self.free and self._desk.has_snapshot() else "busy"
        if self.paused:
            return "paused"
        # Two peers that call each other at once would both be busy: the smaller id's call stands.
        crossed = self._calling == peer and peer < self._around.transport.me
        busy = self._meeting is not None or (self._calling is not None and not crossed)
        return refuse(self.window, busy=busy, has_snapshot=self._desk.has_snapshot())

    def _declining(self, peer: str, reason: DeclineReason) -> Decline:
        now = self._around.clock()
        retry_s, waiting = 10 * RETRY_BUSY_S, tuple[Hint, ...]()
        if self.stance == "consensus":
            retry_s = RETRY_BUSY_S
        elif reason in ("early", "busy"):
            retry_s = self.window.opens_in(now, busy=reason == "busy")
            waiting = self.window.hints(peer, now)
            self.window.called(peer, now)
        return Decline(reason=reason, retry_s=retry_s, waiting=waiting, digest=self._digest())

    # ---- both -------------------------------------------------------------------------------

    def _new_meeting(self, phase: Phase, peer: str, round_: int) -> Meeting:
        layout = self._subject.layout
        return Meeting(phase, peer, round_, self._around.clock(), layout, self.scheduled)

    def _prepare(self, meeting: Meeting) -> None:
        """Keep the snapshot that this meeting would use, and begin to encode it."""
        with suppress(LinkError):  # without one the meeting fails where it takes it
            snapshot = self._desk.keep()
            meeting.work = self.window.work(snapshot.step)
            if self._outgoing is None or self._outgoing.snapshot is not snapshot:
                self._outgoing = Outgoing(self._subject, snapshot, self._around.offload)

    def _hooks(self, meeting: Meeting, machine: Machine) -> Hooks:
        def same_layout() -> None:
            if self._subject.layout != meeting.layout:
                raise LinkError("this peer entered another phase during the meeting")

        def agreed() -> Outgoing:
            meeting.own_act = True
            same_layout()
            snapshot, outgoing = self._desk.take(), self._outgoing
            meeting.snapshot = snapshot
            if outgoing is None or outgoing.snapshot is not snapshot:
                raise LinkError("the snapshot on offer is outdated")
            meeting.own_act = False
            self._meeting = meeting
            theirs = machine.offer if isinstance(machine, Acceptor) else machine.accept
            assert theirs is not None
            meeting.incoming = self._reduction(meeting, theirs.work)
            return outgoing

        def landed(payload: bytearray, filled: int) -> None:
            assert meeting.incoming is not None
            meeting.incoming.landed(payload, filled)

        async def verify() -> None:
            assert meeting.incoming is not None
            meeting.correction = await meeting.incoming.finish()
            same_layout()

        def apply() -> None:
            snapshot, _ = meeting.agreed()
            self.window.over(snapshot.step, meeting.partner, self._around.clock())

        return Hooks(agreed, landed, verify, apply)

    def _reduction(self, meeting: Meeting, work: int) -> Incoming:
        me, subject = self._around.transport.me, self._subject
        assert meeting.snapshot is not None
        works = {me: meeting.work, meeting.partner: work}
        blend = subject.blend(meeting.snapshot.vector, me, works)
        ends = list(accumulate(subject.part_nbytes(part) for part in range(subject.parts)))
        return Incoming(blend, ends, meeting.partner, self._around.offload)

    def _conclude(self, meeting: Meeting, machine: Machine, session: Session | None) -> End:
        """The stream is closed: turn what the machine knows into a settlement."""
        if self._meeting is meeting:
            self._meeting = None
        if meeting.incoming is not None:
            meeting.incoming.cancel()
        if isinstance(machine, Offerer) and (answer := machine.accept or machine.decline):
            self._heard(meeting.partner, answer.digest)
        if isinstance(machine, Offerer) and machine.decline is not None:
            self.window.declined(meeting.partner, machine.decline, self._around.clock())
            if self._subject.ready_made:
                self._desk.release()  # a newer one costs nothing; an encoded one is kept
            return End.DECLINED
        self._buffer.give_back(machine.received)
        end = machine.end or End.FAILED
        event = ExchangeDone(
            phase=meeting.phase,
            outcome=end.value,
            partner=meeting.partner,
            round=meeting.round,
            seconds=self._around.clock() - meeting.began,
            bytes_sent=session.bytes_sent if session else 0,
            bytes_received=session.bytes_received if session else 0,
            distance=meeting.correction.distance if meeting.correction else 0.0,
            reason=machine.reason,
        )
        if end is End.APPLIED:
            self._settle_met(meeting, event, decided=isinstance(machine, Acceptor))
        elif end is End.PENDING:
            self._settle_pending(meeting, event)
        else:
            self._fail(meeting, event)
        return end

    def _settle_met(self, meeting: Meeting, event: ExchangeDone, *, decided: bool) -> None:
        snapshot, correction = meeting.agreed()

        def apply() -> None:
            self._subject.apply_met(snapshot.vector, correction.vector)
            if decided:
                self.in_weights.append((meeting.partner, meeting.round))

        self._around.membership.clear(meeting.partner)
        if meeting.phase == "consensus":
            meeting.scheduled.met = True
        self._desk.settle(Settlement(apply, event, snapshot.step, returns_snapshot=True))

    def _settle_pending(self, meeting: Meeting, event: ExchangeDone) -> None:
        """I said HAVE and heard none: my own part now, the correction when the partner tells."""
        snapshot, correction = meeting.agreed()
        if meeting.phase == "consensus":
            meeting.scheduled.pending_round = meeting.round
        self.pending.add(
            Open(
                peer=meeting.partner,
                round=meeting.round,
                correction=correction.vector,
                window=self.window.number,
                phase=meeting.phase,
                step=snapshot.step,
            )
        )

        def apply() -> None:
            self._subject.apply_solo(snapshot.vector)

        self._around.membership.suspect(meeting.partner, self._around.clock())
        self.window.over(snapshot.step, None, self._around.clock())
        self._desk.settle(Settlement(apply, event, snapshot.step, returns_snapshot=True))

    def _fail(self, meeting: Meeting, event: ExchangeDone) -> None:
        self.window.unreachable(meeting.partner)
        if not meeting.own_act:
            self._around.membership.suspect(meeting.partner, self._around.clock())
        if meeting.snapshot is not None:
            self._desk.put_back(meeting.snapshot)
        self._around.emit(event)

    def _go_solo(self) -> None:
        event = ExchangeDone(phase="train", outcome="solo", partner="", round=self._round)
        if not self._subject.steps_alone:
            self.window.over(None, None, self._around.clock())
            self._around.emit(event)
            return
        snapshot = self._desk.take()

        def apply() -> None:
            self._subject.apply_solo(snapshot.vector)

        self.window.over(snapshot.step, None, self._around.clock())
        self._desk.settle(Settlement(apply, event, snapshot.step, returns_snapshot=True))

    def _heard(self, peer: str, digest: Digest) -> None:
        """A frame of ``peer`` proves it alive; what it told of others is a rumour."""
        now = self._around.clock()
        self._around.membership.clear(peer)
        self._around.membership.hear(digest, now)

    def _next_round(self) -> int:
        self._round += 1
        return self._round

    def _digest(self) -> Digest:
        return self._around.membership.digest(self._around.mine(), self._around.clock())

    # ---- open questions ---------------------------------------------------------------------

    async def _ask_about_pending(self, now: float) -> None:
        """Once a window: ask partners what became of rounds that were left open."""
        if not self.pending or self._asked_in == self.window.number:
            return
        self._asked_in = self.window.number
        membership = self._around.membership
        silent = {peer for peer in self.pending.asked() if membership.is_dead(peer, now)}
        self.pending.expire(self.window.number, silent)
        await self.questions.ask_all(silent)

    def _settle_late(self, item: Open[Any], correction: Any) -> None:
        def apply() -> None:
            self._subject.apply_late(correction)

        if item.round >= GROUP_ROUNDS:
            self.circle.decisions.commit(item.peer, item.round)
        if item.round == self.scheduled.pending_round:
            self.scheduled.met = True
        event = ExchangeDone(phase=item.phase, outcome="late", partner=item.peer, round=item.round)
        self._desk.settle(Settlement(apply, event, item.step, returns_snapshot=False))
