"""Group meetings of one peer, as leader and as member: one at a time, shared with its pairs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from swarmnet.errors import LinkError, MessageError, PeerFault
from swarmnet.exchange.attend import TOPIC, Attendance, Host, Minutes, Tools
from swarmnet.exchange.gather import Aim
from swarmnet.exchange.group import Book, Seating
from swarmnet.exchange.leading import Leading
from swarmnet.exchange.ledger import GROUP_ROUNDS, Decisions
from swarmnet.exchange.pair import End
from swarmnet.exchange.transport import FrameStream
from swarmnet.exchange.underway import Underway
from swarmnet.exchange.voice import Voice
from swarmnet.wire import Kind
from swarmnet.wire.messages import MAX_GROUP, Answer, Call, Decline, Join, Lane, Phase, Roster

RETRY_S = 0.25
"""A meeting under way is short beside the windows between meetings."""


@dataclass
class _Sitting:
    """The one meeting that this peer has joined or leads; lanes wait for its roster."""

    leader: str
    round: int
    attendance: Attendance | None = None
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    lanes: int = 0


class Circle:
    """Serves calls and lanes, leads when told to, answers for decisions."""

    def __init__(self, tools: Tools, host: Host) -> None:
        self.decisions = Decisions()
        """(leader, number): my own decisions, and those of others that I applied."""
        self._tools = tools
        self._host = host
        self._me = tools.transport.me
        self._sitting: _Sitting | None = None
        self._leading: Leading | None = None
        self._newest = GROUP_ROUNDS + host.number()
        self.underway = Underway()

    @property
    def free(self) -> bool:
        return self._sitting is None and self._leading is None

    async def open(self) -> None:
        await self._tools.transport.serve(TOPIC, self._serve)

    # ---- as leader --------------------------------------------------------------------------

    async def lead(self, aim: Aim, phase: Phase) -> End:
        """Call a group and see its meeting through; the host has the minutes if one was held.

        DECLINED: nobody came, or another leader's call went first.
        """
        subject = self._host.subject
        call = Call(
            round=self._host.number(),
            phase=phase,
            layout=subject.layout,
            nbytes=subject.nbytes,
            digest=self._host.digest(),
        )
        book = Book(self._me, self.decisions, self._number, self._host.committed)
        leading = self._leading = Leading(self._tools, self._host, call, aim, book)
        sitting: _Sitting | None = None
        try:
            if not await leading.gather():
                return End.DECLINED
            sitting = self._sitting = _Sitting(self._me, call.round)
            sitting.attendance = leading.form()
            sitting.decided.set()
            await leading.hold()
            return sitting.attendance.minutes.end
        finally:
            if self._leading is leading:
                self._leading = None
            self._rise(sitting)
            await leading.close()

    def _number(self) -> int:
        self._newest = GROUP_ROUNDS + self._host.number()
        return self._newest

    # ---- as member --------------------------------------------------------------------------

    async def _serve(self, stream: FrameStream) -> None:
        try:
            first = await stream.receive(self._tools.links.deadline_s(stream.peer))
            if first.kind is Kind.LANE:
                await self._on_lane(stream, Lane.parse(first))
            else:
                with self.underway.entered():
                    await self._on_call(stream, Call.parse(first))
        finally:
            await stream.close()

    async def _on_call(self, stream: FrameStream, call: Call) -> None:
        deadline_s = self._tools.links.deadline_s(stream.peer)
        self._host.heard(stream.peer, call.digest)
        decline = self._refusal(stream.peer, call)
        if decline is not None:
            await stream.send(decline.frame(), deadline_s)
            with suppress(LinkError, PeerFault):
                await stream.receive(deadline_s)  # the leader reads last and closes
            return
        sitting = self._sitting = _Sitting(stream.peer, call.round)
        minutes = Minutes(call, stream.peer, self._tools.clock())
        voice = Voice(stream, deadline_s)
        try:
            await self._sit(sitting, voice, minutes)
        finally:
            self._rise(sitting)
            await voice.close()

    async def _sit(self, sitting: _Sitting, voice: Voice, minutes: Minutes) -> None:
        voice.say(Join(round=sitting.round, digest=self._host.digest()).frame())
        roster = Roster.parse(await voice.hear())
        members = roster.members
        if roster.round != sitting.round or members[0] != sitting.leader:
            raise MessageError("the roster of another meeting")
        if self._me not in members or len(set(members)) < len(members):
            raise MessageError("a roster without me, or with somebody twice")
        seating = Seating(members, self._host.subject.parts)
        attendance = Attendance(self._tools, self._host, seating, minutes, voice.say)
        sitting.attendance = attendance
        sitting.decided.set()
        attendance.spawn(self._listen(voice, attendance))
        await attendance.run()
        for number in minutes.superseded:
            self.decisions.drop(sitting.leader, number)
        if minutes.end is End.APPLIED:
            self.decisions.commit(sitting.leader, minutes.number)

    async def _listen(self, voice: Voice, attendance: Attendance) -> None:
        try:
            while True:
                attendance.deliver(await voice.hear())
        except (LinkError, PeerFault) as error:
            attendance.leave(f"{type(error).__name__}: {error}")

    def _refusal(self, peer: str, call: Call) -> Decline | None:
        # Two leaders that call each other would both be busy: the smaller id's call stands.
        gives_way = self._leading is not None and peer < self._me and self._sitting is None
        if self._sitting is not None or (self._leading is not None and not gives_way):
            return Decline(reason="busy", retry_s=RETRY_S, digest=self._host.digest())
        decline = self._host.welcome(peer, call)
        if decline is None and self._leading is not None:
            self._leading.give_way()
            self._leading = None
        return decline

    def _rise(self, sitting: _Sitting | None) -> None:
        if sitting is not None:
            sitting.decided.set()
            if self._sitting is sitting:
                self._sitting = None

    async def _on_lane(self, stream: FrameStream, lane: Lane) -> None:
        """A lane may come before the roster, never before the call."""
        sitting = self._sitting
        if sitting is None or (lane.leader, lane.round) != (sitting.leader, sitting.round):
            return
        if sitting.lanes >= 2 * MAX_GROUP:
            return
        sitting.lanes += 1
        await sitting.decided.wait()
        if sitting.attendance is not None:
            await sitting.attendance.lane(stream)

    # ---- what became of it ------------------------------------------------------------------

    def answer(self, asker: str, leader: str, number: int) -> Answer:
        """To a member that said HAVE and heard no more. By being asked, an open one is dropped."""
        if leader != self._me:
            return self.decisions.known(leader, number) or "unknown"
        if number > self._newest:
            return "unknown"
        if self._leading is not None and not self._leading.asked(asker, number):
            return "unknown"
        return self.decisions.tell(self._me, number)
