"""The leader's side of one group meeting: calls, control streams, and the machine that decides."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from swarmnet.errors import LinkError, MessageError, PeerFault
from swarmnet.exchange.attend import TOPIC, Attendance, Host, Minutes, Tools
from swarmnet.exchange.gather import Aim, Gathering, together
from swarmnet.exchange.group import Book, GroupLeader, Seating, To
from swarmnet.exchange.voice import Voice
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Call, Decline, Join

SOONEST_S = 0.05
LATEST_S = 5.0


class Leading:
    """From the first call to the last word. ``gather`` comes first, then ``hold``."""

    def __init__(self, tools: Tools, host: Host, call: Call, aim: Aim, book: Book) -> None:
        self.machine: GroupLeader | None = None
        self.attendance: Attendance | None = None
        self.gathering = Gathering(aim, tools.clock())
        self._tools = tools
        self._host = host
        self._call = call
        self._book = book
        self._me = tools.transport.me
        self._voices: dict[str, Voice] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: set[asyncio.Future[None]] = set()
        self._moved = asyncio.Event()
        self._began = tools.clock()
        self._bug: BaseException | None = None

    # ---- the call ---------------------------------------------------------------------------

    async def gather(self) -> bool:
        """Call until the aim is reached or time is up; False when nobody came or I gave way."""
        gathering, clock = self.gathering, self._tools.clock
        while not gathering.closed(clock()):
            for peer in gathering.invite(clock()):
                self._spawn(self._invite(peer))
            await self._pause(gathering.next_at())
        return bool(gathering.joined) and not gathering.abandoned

    def give_way(self) -> bool:
        """Another leader's call goes first; True unless the roster is out already."""
        if self.machine is None:
            self.gathering.abandoned = True
            self._moved.set()
        return self.machine is None

    def form(self) -> Attendance:
        """The roster is closed."""
        subject = self._host.subject
        members = together(self._me, self.gathering.joined)
        seating = Seating(members, subject.parts, subject.whole)
        patience_s = max(map(self._tools.links.deadline_s, self.gathering.joined))
        self.machine = GroupLeader(seating, self._book, patience_s, self._tools.clock())
        minutes = Minutes(self._call, self._me, self._began)
        self.attendance = Attendance(self._tools, self._host, seating, minutes, self._said_to_self)
        self.attendance.left = self._left
        return self.attendance

    async def hold(self) -> None:
        """The meeting itself, until every member knows how it ended or is lost."""
        assert self.machine is not None
        assert self.attendance is not None
        self._spawn(self._keep_time())
        self._act(self.machine.start(self._call.round))
        await self.attendance.run()
        while self.machine.end is None and self._bug is None:
            await self._pause(None)
        await asyncio.gather(*(voice.finish() for voice in self._voices.values()))
        # Members read the last word and close; one that does not must not keep me.
        await asyncio.wait(self._listening, timeout=LATEST_S)

    async def close(self) -> None:
        """Whatever is not committed now never will be."""
        if self.machine is not None:
            self.machine.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(voice.close() for voice in self._voices.values()))
        if self._bug is not None:
            raise self._bug

    def asked(self, peer: str, number: int) -> bool:
        """A member asks about a decision, so it has lost its stream; False for a stranger."""
        machine = self.machine
        if machine is None or machine.end is not None or number != machine.number:
            return True
        if peer not in machine.chosen:
            return False
        self._act(machine.gone(peer, "it lost the leader's stream", self._tools.clock()))
        return True

    # ---- inside -----------------------------------------------------------------------------

    async def _invite(self, peer: str) -> None:
        try:
            voice = await self._called(peer)
        except (LinkError, PeerFault):
            self._host.unreachable(peer)
            self.gathering.lost(peer)
        else:
            if voice is not None:
                await self._listen(voice)
        finally:
            self._moved.set()

    async def _called(self, peer: str) -> Voice | None:
        """The stream to a peer that joined; None when it declined."""
        deadline_s = self._tools.links.deadline_s(peer)
        stream = await self._tools.transport.open(peer, TOPIC, deadline_s)
        voice = Voice(stream, deadline_s)
        try:
            voice.say(self._call.frame())
            answer = await voice.hear()
            if answer.kind is Kind.DECLINE:
                decline = Decline.parse(answer)
                self._host.heard(peer, decline.digest)
                wait_s = min(max(decline.retry_s, SOONEST_S), LATEST_S)
                again_at, coming = self._tools.clock() + wait_s, decline.reason == "early"
                self.gathering.declined(peer, again_at, coming=coming)
                return None
            self._host.heard(peer, Join.parse(answer).digest)
            if self.machine is None and not self.gathering.abandoned:
                self.gathering.join(peer, self._tools.clock())
                self._voices[peer] = voice
                return voice
            return None
        finally:
            if peer not in self._voices:
                await voice.close()

    async def _listen(self, voice: Voice) -> None:
        self._moved.set()
        heard = asyncio.get_running_loop().create_future()
        self._listening.add(heard)
        try:
            while True:
                frame = await voice.hear()
                if self.machine is None:
                    raise MessageError(f"{frame.kind.name} before the roster")
                self._act(self.machine.on_frame(voice.peer, frame, self._tools.clock()))
        except (LinkError, PeerFault) as error:
            if self.machine is None:
                self.gathering.lost(voice.peer)
                self._voices.pop(voice.peer, None)
                await voice.close()
            else:
                self._act(self.machine.gone(voice.peer, str(error), self._tools.clock()))
        finally:
            heard.cancel()

    def _said_to_self(self, frame: Frame) -> None:
        assert self.machine is not None
        self._act(self.machine.on_frame(self._me, frame, self._tools.clock()))

    def _left(self, reason: str) -> None:
        assert self.machine is not None
        self._act(self.machine.gone(self._me, reason, self._tools.clock()))

    def _act(self, words: list[To]) -> None:
        """My own word first: what I commit is applied here before anybody can ask."""
        assert self.machine is not None
        assert self.attendance is not None
        self.attendance.minutes.removed.update(self.machine.removed)
        for word in words:
            if word.peer != self._me:
                self._voices[word.peer].say(word.frame)
            elif word.frame.kind is not Kind.ROSTER:
                self.attendance.deliver(word.frame)
        self._moved.set()

    async def _keep_time(self) -> None:
        assert self.machine is not None
        while self.machine.end is None:
            await self._pause(self.machine.deadline)
            self._act(self.machine.tick(self._tools.clock()))

    async def _pause(self, until: float | None) -> None:
        """Until something moves or this time comes."""
        timeout = None if until is None else max(0.0, until - self._tools.clock())
        self._moved.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._moved.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bug = error
            self.give_way()
            if self.attendance is not None:
                self.attendance.leave(str(error))
            self._moved.set()
