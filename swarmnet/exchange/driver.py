"""The shell around the exchange: joins machines, desk and membership to a transport.

It lives in the network's event loop. Every decision it acts on is made elsewhere (``window``,
``pair``, ``ledger``); here is only the order of calls. One meeting at a time per peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from swarmnet.errors import DeadlinePassed, LinkError, MessageError, PeerFault
from swarmnet.exchange.agreement import Agreement
from swarmnet.exchange.circle import Circle
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.farewell import Doors as FarewellDoors
from swarmnet.exchange.farewell import Farewells
from swarmnet.exchange.grouphost import Doors, GroupHost, Own
from swarmnet.exchange.hedge import first_to_accept
from swarmnet.exchange.ledger import GROUP_ROUNDS, Open
from swarmnet.exchange.meeting import Meeting, ReceiveBuffer, Scheduled
from swarmnet.exchange.outbound import Outbound
from swarmnet.exchange.pair import Acceptor, End, MeetingMachine, Offerer
from swarmnet.exchange.preparation import Preparation
from swarmnet.exchange.questions import TOPIC as ASK_TOPIC
from swarmnet.exchange.questions import Questions
from swarmnet.exchange.session import Hooks, Session
from swarmnet.exchange.settling import Settling
from swarmnet.exchange.subject import Subject
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.timing import Timing
from swarmnet.exchange.transport import FrameStream
from swarmnet.exchange.underway import Underway
from swarmnet.exchange.window import RETRY_BUSY_S, CallGroup, GoSolo, OfferTo, Window, refuse
from swarmnet.wire.messages import (
    Accept,
    Decline,
    DeclineReason,
    Digest,
    Hint,
    Hold,
    Offer,
    Phase,
)

TOPIC = "exchange"
ROUND_BITS = 24
"""Rounds are numbered from incarnation << ROUND_BITS, so no restart ever reuses one."""

Stance = Literal["syncing", "train", "consensus", "leaving"]


class Gossip:
    """One peer's meetings, as offerer and as acceptor, in training and in consensus."""

    def __init__(
        self, around: Surroundings, window: Window, desk: Desk, subject: Subject, incarnation: int
    ) -> None:
        self._around = around
        self._desk = desk
        self._subject = subject
        self.window = window
        self.settling = Settling(around, window, desk, subject)
        self.pending = self.settling.pending
        self.questions = Questions(around.transport, around.links, self.pending, self._late)
        self.decisions = self.questions.decisions
        self.stance: Stance = "syncing"
        self.paused = False
        self._round = incarnation << ROUND_BITS
        self._calling: set[str] = set()
        self._held: str | None = None
        self._stepped = asyncio.Event()
        self._meeting: Meeting | None = None
        self._wake = asyncio.Event()
        self._buffer = ReceiveBuffer()
        self._asked_in = -1
        self._preparation = Preparation(around, window, desk, subject)
        own = Own(window, desk, subject, self.pending, self.settling.in_weights)
        doors = Doors(
            refusal=self._refusal,
            declining=self._declining,
            heard=self._heard_of,
            digest=self._digest,
            number=self._next_round,
            wake=self._wake.set,
        )
        self.circle = Circle(around, GroupHost(around, own, doors))
        self.questions.groups = self.circle.answer
        self._underway = Underway()
        farewell_doors = FarewellDoors(
            refusal=self._inherits_not,
            heirs=self._heirs,
            number=self._next_round,
            digest=self._digest,
            effort=self._effort,
            step=lambda: window.total_steps,
            window=lambda: window.number,
            inherited=lambda peer, round_: self.settling.in_weights.append((peer, round_)),
        )
        self.farewells = Farewells(around, desk, subject.legacy, self.questions, farewell_doors)

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
            self.settling.in_weights.append((peer, round_))
            ledger = self.circle.decisions if round_ >= GROUP_ROUNDS else self.decisions
            ledger.commit(peer, round_)

    def recall(self, owed: Iterable[Open[Any]]) -> None:
        """After a restart: questions that were open when the loaded weights were kept."""
        for item in owed:
            self.pending.add(replace(item, window=self.window.number))

    def enter_consensus(self) -> None:
        """Training thread, in no meeting: from here on scheduled rounds of pure averaging."""
        self._subject.enter_consensus()
        self._desk.clear()
        self.stance = "consensus"

    async def run(self) -> None:
        """Meet whenever the window is ripe, until cancelled, or until this peer retires."""
        with self._underway.entered():
            while True:
                self._wake.clear()
                until = await self._turn()
                timeout = None if until is None else max(0.0, until - self._around.clock())
                with suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()

    async def retire(self) -> None:
        """Meet nobody from here on. What is under way ends here and now, as if it had been cut."""
        self.stance = "leaving"
        await self._underway.end()
        await self.circle.underway.end()

    @property
    def scheduled(self) -> Scheduled:
        """The consensus meeting that is due."""
        return self.settling.scheduled

    @scheduled.setter
    def scheduled(self, scheduled: Scheduled) -> None:
        self.settling.scheduled = scheduled

    @property
    def agreement(self) -> Agreement:
        """How far the consensus phase has come."""
        return self.settling.agreement

    @property
    def free(self) -> bool:
        engaged = self._calling or self._held or self._meeting
        return not engaged and self.circle.free

    @property
    def retired(self) -> bool:
        """It meets nobody ever after."""
        return self.stance == "leaving"

    @property
    def can_offer(self) -> bool:
        """Free, and the training thread left a snapshot."""
        return self.free and self._desk.has_snapshot()

    @property
    def _trains(self) -> bool:
        return self.stance == "train" and not self.paused and self.free

    def _boundary(self, step: int, progress: float) -> None:
        self.window.boundary(step, progress, self._around.clock())
        self._stepped.set()
        self._stepped.clear()
        self._wake.set()

    async def _turn(self) -> float | None:
        """Act once; returns when to look again (None: at the next boundary)."""
        if not self._trains:
            return None
        await self._ask_about_pending(self._around.clock())
        ready = self.window.ripe and self._desk.has_snapshot()
        if not self._trains or not ready:  # asking took a while
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
                self.settling.alone(self._round)
                return now
        return decision.until

    async def _turn_in_group(self, live: list[str], now: float) -> float | None:
        decision = self.window.next_call(live)
        match decision:
            case CallGroup(aim):
                came = await self.circle.lead(aim, "train")
                return None if came is End.DECLINED else now
            case GoSolo():
                self.settling.alone(self._round)
                return now
        return decision.until

    # ---- as offerer -------------------------------------------------------------------------

    async def offer(self, peer: str, phase: Phase, index: int) -> End:
        """Offer to ``peer`` and see the meeting through. Never raises LinkError or PeerFault.

        A partner in training that is clearly late gets a rival; then this is how it went with
        whoever accepted first.
        """
        calls = [self._place(peer, phase, index)]

        def alternate() -> Outbound | None:
            live = self._around.membership.alive(self._around.clock(), ("training",))
            other = self.window.alternate(live, peer)
            held = calls[0].machine.held
            if other is None or phase != "train" or self._meeting is not None or held:
                return None
            calls.append(self._place(other, phase, index))
            return calls[-1]

        chosen: Outbound | None = None
        try:
            chosen = await first_to_accept(calls[0], self._around.links.hedge_s(peer), alternate)
            if chosen is not None:
                await chosen.run()
        finally:
            ends = {id(call): self._over(call, chosen) for call in calls}
            self._calling.clear()
        return ends[id(chosen or calls[0])]

    def _place(self, peer: str, phase: Phase, index: int) -> Outbound:
        self._round += 1
        self._calling.add(peer)
        meeting = self._new_meeting(phase, peer, self._round, called=True)
        waits = phase == "train" and self._calling == {peer}  # a rival is called to save time
        offer = Offer(
            round=self._round,
            phase=phase,
            index=index,
            layout=meeting.layout,
            nbytes=self._subject.nbytes,
            work=meeting.work,
            patience_s=self.window.patience_s if waits else 0.0,
            digest=self._digest(),
            hints=self.window.hints(peer, self._around.clock()),
        )
        return Outbound(peer, Offerer(offer, self._buffer.lend), meeting, self._dial)

    async def _dial(self, call: Outbound) -> Session:
        links, timing = self._around.links, call.meeting.timing
        try:
            deadline_s = links.answer_s(call.peer)
            stream = await self._around.transport.open(call.peer, TOPIC, deadline_s)
        except DeadlinePassed:
            timing.gave_up(timing.began, asyncio.get_running_loop().time())
            links.learn(call.peer, timing)
            raise
        return Session(stream, call.machine, self._hooks(call.meeting, call.machine), links, timing)

    def _over(self, call: Outbound, chosen: Outbound | None) -> End:
        call.machine.lost("the exchange was cancelled")
        lost_race = chosen is not None and call is not chosen and call.accepted is not False
        call.meeting.withdrawn = lost_race
        return self._conclude(call.meeting, call.machine, call.session)

    # ---- as acceptor ------------------------------------------------------------------------

    async def _serve(self, stream: FrameStream) -> None:
        """A peer opened a stream to us: it offers."""
        links = self._around.links
        peer = stream.peer
        try:
            offer = Offer.parse(await stream.receive(links.deadline_s(peer)))
            self._heard(peer, offer)
            if offer.farewell:
                with self._underway.entered():
                    await self.farewells.take(stream, offer)
                return
            reason = self._objection(peer, offer)
            if reason == "early" and self._may_hold(offer):
                await self._hold(stream, offer)
                reason = self._objection(peer, offer)
            if reason is None:
                await self._accept(stream, offer)
                return
            decline = self._declining(peer, reason)
            await stream.send(decline.frame(), links.deadline_s(peer))
            with suppress(LinkError, PeerFault):
                await stream.receive(links.deadline_s(peer))  # the offerer reads last and closes
        finally:
            await stream.close()

    def _objection(self, peer: str, offer: Offer) -> DeclineReason | None:
        return self._refusal(peer, offer) or (None if self.circle.free else "busy")

    def _may_hold(self, offer: Offer) -> bool:
        """Whether I am free when my window opens, within the caller's patience."""
        return self.free and self.window.opens_within(offer.patience_s, self._around.clock())

    async def _hold(self, stream: FrameStream, offer: Offer) -> None:
        """Let the caller wait for my window. Raises LinkError as soon as it leaves, PeerFault when
        it speaks."""
        peer, patience_s = stream.peer, min(offer.patience_s, self.window.patience_s)
        self._held = peer
        opening = asyncio.create_task(self._opening(peer, offer))
        speaking = asyncio.create_task(stream.receive(2 * patience_s))
        both = {opening, speaking}
        try:
            await stream.send(Hold(round=offer.round).frame(), self._around.links.deadline_s(peer))
            await asyncio.wait(both, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                raise MessageError(f"{speaking.result().kind.name} from a peer that is held")
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._held = None

    async def _opening(self, peer: str, offer: Offer) -> None:
        """Until an offer is not too early any more."""
        while self._refusal(peer, offer) == "early":
            await self._stepped.wait()

    async def _accept(self, stream: FrameStream, offer: Offer) -> None:
        peer = stream.peer
        meeting = self._new_meeting(offer.phase, peer, offer.round, called=False)
        accept = Accept(
            round=offer.round,
            nbytes=self._subject.nbytes,
            work=meeting.work,
            digest=self._digest(),
            hints=self.window.hints(peer, self._around.clock()),
        )

        def commit() -> bool:
            return self.decisions.commit(peer, offer.round)

        machine = Acceptor(offer, accept, commit, self._buffer.lend)
        hooks, links = self._hooks(meeting, machine), self._around.links
        session = Session(stream, machine, hooks, links, meeting.timing)
        self._meeting = meeting
        self.decisions.begin(peer, offer.round)
        try:
            with self._underway.entered():
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
        # Two peers that call each other at once would both be busy: the smaller id's call stands.
        # With a rival called as well nothing is crossed: it may accept at any moment.
        crossed = self._calling == {peer} and peer < self._around.transport.me
        busy = self._meeting is not None or (bool(self._calling) and not crossed)
        busy = busy or self._held not in (None, peer)
        if self.stance == "consensus":
            busy = busy or not self._desk.has_snapshot()
            return self.agreement.refuses(peer, offer.index, self.scheduled, busy=busy)
        if self.paused:
            return "paused"
        return refuse(self.window, busy=busy, has_snapshot=self._desk.has_snapshot())

    def _declining(self, peer: str, reason: DeclineReason) -> Decline:
        now = self._around.clock()
        retry_s, hints = 10 * RETRY_BUSY_S, tuple[Hint, ...]()
        if self.stance == "consensus":
            retry_s = RETRY_BUSY_S
        elif reason in ("early", "busy"):
            retry_s = self.window.opens_in(now, busy=reason == "busy") + self._left_s(now)
            hints = self.window.hints(peer, now)
            self.window.called(peer, now)
        return Decline(reason=reason, retry_s=retry_s, digest=self._digest(), hints=hints)

    def _left_s(self, now: float) -> float:
        """What the meeting under way will still take, by what its link did before."""
        if self._meeting is None:
            return 0.0
        whole_s = self._around.links.expected_s(self._meeting.partner, self._subject.nbytes)
        return max(0.0, self._meeting.began + whole_s - now) if whole_s is not None else 0.0

    # ---- farewells --------------------------------------------------------------------------

    def _inherits_not(self) -> DeclineReason | None:
        """A peer that pauses, or meets somebody, may well be an heir."""
        if self.stance == "train":
            return None
        return "phase" if self.stance == "consensus" else self.stance

    def _heirs(self) -> list[str]:
        """Suspects last: whoever leaves has nothing to lose by asking them too."""
        now, members = self._around.clock(), self._around.membership
        sound = members.alive(now, ("training",))
        others = set(members.alive(now, ("training",), suspects=True)).difference(sound)
        return self.window.known_first(sound) + sorted(others)

    def _effort(self) -> int:
        steps = self.window.work(self.window.total_steps)
        return self._subject.effort(steps, self.window.step_s)

    # ---- both -------------------------------------------------------------------------------

    def _new_meeting(self, phase: Phase, peer: str, round_: int, *, called: bool) -> Meeting:
        layout, now = self._subject.layout, self._around.clock()
        timing = Timing(asyncio.get_running_loop().time(), called)
        meeting = Meeting(phase, peer, round_, now, layout, self.scheduled, timing)
        self._preparation.prepare(meeting)
        return meeting

    def _hooks(self, meeting: Meeting, machine: MeetingMachine) -> Hooks:
        def begun() -> None:
            self._meeting = meeting

        return self._preparation.hooks(meeting, machine, begun)

    def _conclude(self, meeting: Meeting, machine: MeetingMachine, session: Session | None) -> End:
        """The stream is closed. The training thread must not see me free before all is settled."""
        meeting.ended = self._around.clock()
        try:
            return self._end_of(meeting, machine, session)
        finally:
            if self._meeting is meeting:
                self._meeting = None

    def _end_of(self, meeting: Meeting, machine: MeetingMachine, session: Session | None) -> End:
        if meeting.incoming is not None:
            meeting.incoming.cancel()
        if isinstance(machine, Offerer) and (answer := machine.accept or machine.decline):
            self._heard(meeting.partner, answer)
        if meeting.snapshot is None:
            self._preparation.unused()
        if isinstance(machine, Offerer) and machine.decline is not None:
            self.window.declined(meeting.partner, machine.decline, meeting.ended)
            self.agreement.declined(meeting.partner, machine.decline.reason)
            return End.DECLINED
        self._buffer.give_back(machine.received)
        return self.settling.conclude(meeting, machine, session)

    def _heard(self, peer: str, message: Offer | Accept | Decline) -> None:
        """A frame of ``peer`` proves it alive; what it told of others is a rumour."""
        self._heard_of(peer, message.digest)
        self.window.heard(message.hints, self._around.clock())

    def _heard_of(self, peer: str, digest: Digest | None) -> None:
        self._around.membership.hear(peer, digest, self._around.clock())

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

    def _late(self, item: Open[Any], correction: Any) -> None:
        """The partner of an open question had applied."""
        if item.round >= GROUP_ROUNDS:
            self.circle.decisions.commit(item.peer, item.round)
        self.settling.late(item, correction)
