"""One member's side of a group meeting over its lanes: performs what the machine says.

The leader attends like everybody else; only the way of its words to itself is shorter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from swarmnet.errors import LinkError, PayloadError, PeerFault
from swarmnet.exchange.claims import Ids
from swarmnet.exchange.desk import Snapshot
from swarmnet.exchange.group import Seating
from swarmnet.exchange.groupmember import Act, GroupMember, Say, Task
from swarmnet.exchange.links import Links
from swarmnet.exchange.pair import End
from swarmnet.exchange.payload import Offload, Outgoing
from swarmnet.exchange.subject import Blend, Cargo, Correction
from swarmnet.exchange.transport import FrameStream, Transport
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Call, Decline, Digest, Lane, Means

TOPIC = "group"


class Tools(Protocol):
    """What a meeting needs from its process (``driver.Surroundings`` has it)."""

    @property
    def transport(self) -> Transport: ...
    @property
    def links(self) -> Links: ...
    @property
    def offload(self) -> Offload: ...
    @property
    def clock(self) -> Callable[[], float]: ...


@dataclass
class Minutes:
    """What became of a group meeting at one of its members."""

    call: Call
    leader: str
    began: float
    members: tuple[str, ...] = ()
    """Who had a seat."""
    end: End = End.FAILED
    reason: str = ""
    own_act: bool = False
    """It failed because of this peer."""
    number: int = 0
    """The decision that stands: what a member asks the leader about."""
    works: dict[str, int] = field(default_factory=dict)
    """Whose contributions are in the correction."""
    claims: dict[str, Ids] = field(default_factory=dict)
    """The samples in it; nobody's twice."""
    superseded: tuple[int, ...] = ()
    """Decisions of this leader that can never be committed."""
    snapshot: Snapshot | None = None
    correction: Correction | None = None
    removed: dict[str, str] = field(default_factory=dict)
    """Who had a seat and does not count, and why, as far as this member knows."""
    bytes_sent: int = 0
    bytes_received: int = 0


class Host(Protocol):
    """The peer that attends: what a group meeting means to it."""

    @property
    def subject(self) -> Cargo: ...

    def welcome(self, peer: str, call: Call) -> Decline | None:
        """None: this call would be accepted now."""
        ...

    def heard(self, peer: str, digest: Digest | None) -> None: ...
    def digest(self) -> Digest | None: ...

    def unreachable(self, peer: str) -> None:
        """It was called and did not answer."""
        ...

    def number(self) -> int:
        """The next round of my own."""
        ...

    def committed(self, sample: int) -> bool:
        """An earlier meeting counted it."""
        ...

    def take(self) -> tuple[Outgoing, int, Ids]:
        """The snapshot with its payload, out from now on, the work behind it, its samples.

        Raises LinkError when there is none.
        """
        ...

    def conclude(self, minutes: Minutes) -> None:
        """The meeting is over: settle, keep as pending, or put the snapshot back."""
        ...


class Attendance:
    """A seat in a meeting, from the roster to the end."""

    def __init__(
        self, tools: Tools, host: Host, seating: Seating, minutes: Minutes, say: Callable[..., None]
    ) -> None:
        """``say``: takes a frame for the leader."""
        self.seating = seating
        self.minutes = minutes
        self._tools = tools
        self._host = host
        self._say = say
        self._me = tools.transport.me
        self._machine: GroupMember | None = None
        self._outgoing: Outgoing | None = None
        self._bench = asyncio.Lock()
        """The arithmetic is done by one at a time."""
        self._blend: Blend | None = None
        self._blend_of = -1
        self._fused: list[memoryview] = []
        self._lanes: set[str] = set()
        self.left: Callable[[str], None] = lambda reason: None
        """Told at once when this member goes before the end: for a leader that attends."""
        self._moved = asyncio.Event()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bug: BaseException | None = None

    # ---- for the leader's word and for lanes --------------------------------------------------

    async def run(self) -> None:
        """Until the end, whatever the network does; then the host has the minutes."""
        minutes = self.minutes
        minutes.members = self.seating.members
        try:
            self._begin()
            await self._over.wait()
        except LinkError as error:
            minutes.own_act, minutes.reason = True, str(error)
        finally:
            self.leave("the meeting was cancelled")
            self._conclude()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._bug is not None:
            raise self._bug

    def deliver(self, frame: Frame) -> None:
        """A word of the leader; what it ends is over when this returns. Raises PeerFault."""
        if self._machine is not None:
            self._perform(self._machine.on_frame(frame))

    def leave(self, reason: str) -> None:
        """The leader is lost, or this peer cannot go on."""
        over = self._machine is not None and self._machine.end is not None
        if self._machine is not None:
            self._machine.lost(reason)
        self._over.set()
        if not over:
            self.left(reason)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the meeting."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def lane(self, stream: FrameStream) -> None:
        """A member opened its lane to me; the caller closes it."""
        peer = stream.peer
        known = peer != self._me and peer in self.seating.members
        if not known or peer in self._lanes or self._over.is_set():
            return
        self._lanes.add(peer)
        self._notify()
        await asyncio.wait({self.spawn(self._lane_in(stream))})

    # ---- inside -----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._outgoing, work, mine = self._host.take()
        self.minutes.snapshot = self._outgoing.snapshot
        size_of = self._host.subject.part_nbytes
        self._machine = GroupMember(self._me, self.seating, work, size_of, mine)
        self._check_layout()
        self._perform(self._machine.start())
        for peer in self.seating.members:
            if peer != self._me and self.seating.needs(peer):
                self.spawn(self._lane_out(peer))
            if peer != self._me and self.seating.needs(self._me):
                self.spawn(self._expect(peer))

    def _conclude(self) -> None:
        minutes, machine = self.minutes, self._machine
        if machine is not None and machine.end is not None:
            minutes.end, minutes.reason = machine.end, minutes.reason or machine.reason
            minutes.number, minutes.works = machine.number or 0, machine.works
            minutes.claims, minutes.superseded = machine.claims, tuple(machine.superseded)
            minutes.removed = {
                peer: minutes.removed.get(peer, "removed by the leader")
                for peer in self.seating.members
                if peer not in machine.works and machine.number is not None
            }
        self._host.conclude(minutes)

    @property
    def _at(self) -> GroupMember:
        assert self._machine is not None
        return self._machine

    def _perform(self, acts: list[Act]) -> None:
        for act in acts:
            match act:
                case Say(frame):
                    self._say(frame)
                case Task.BLEND:
                    self.spawn(self._blend_own(self._at.number or 0))
                case Task.FINISH:
                    self.spawn(self._finish(self._at.number or 0))
        if self._at.end is not None:
            self._over.set()
        self._notify()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, LinkError | PeerFault):
            self.minutes.own_act = True
        else:
            self._bug = error
        self.leave(f"{type(error).__name__}: {error}")

    def _notify(self) -> None:
        self._moved.set()
        self._moved.clear()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            await self._moved.wait()

    def _check_layout(self) -> None:
        if self._host.subject.layout != self.minutes.call.layout:
            raise LinkError("this peer entered another phase during the meeting")

    # ---- lanes ------------------------------------------------------------------------------

    async def _send(self, stream: FrameStream, frame: Frame) -> None:
        await stream.send(frame, self._tools.links.deadline_s(stream.peer))
        self.minutes.bytes_sent += frame.wire_bytes

    async def _receive(self, stream: FrameStream) -> Frame:
        frame = await stream.receive(self._tools.links.deadline_s(stream.peer))
        self.minutes.bytes_received += frame.wire_bytes
        return frame

    async def _lane_out(self, peer: str) -> None:
        """My contribution to one member; in a butterfly its means come back."""
        try:
            deadline_s = self._tools.links.deadline_s(peer)
            stream = await self._tools.transport.open(peer, TOPIC, deadline_s)
            try:
                await self._contribute(peer, stream)
                if self.seating.direct:
                    await stream.receive(deadline_s)  # it reads last and closes
                else:
                    await self._adopt_means(peer, stream)
            finally:
                await stream.close()
        except (LinkError, PeerFault) as error:
            self._without(peer, str(error), self._at.means_lost(peer))

    async def _contribute(self, peer: str, stream: FrameStream) -> None:
        assert self._outgoing is not None
        lane = Lane(leader=self.minutes.leader, round=self.minutes.call.round)
        await self._send(stream, lane.frame())
        for part in self.seating.needs(peer):
            await self._send(stream, Frame(Kind.PART, await self._outgoing.part(part)))

    async def _expect(self, peer: str) -> None:
        """A lane that never comes must not keep the others waiting."""
        try:
            async with asyncio.timeout(2 * self._tools.links.deadline_s(peer)):
                await self._until(lambda: peer in self._lanes)
        except TimeoutError:
            self._without(peer, "no lane from it", self._at.lane_lost(peer))

    async def _lane_in(self, stream: FrameStream) -> None:
        """A member's contribution; in a butterfly the means of my parts go back."""
        peer, machine = stream.peer, self._at
        try:
            while not machine.whole(peer):
                frame = await self._receive(stream)
                if frame.kind is not Kind.PART:
                    raise PayloadError(f"{frame.kind.name} among the parts")
                self._perform(machine.on_part(peer, memoryview(frame.body)))
        except (LinkError, PeerFault) as error:
            self._without(peer, str(error), machine.lane_lost(peer))
            return
        if not self.seating.direct:
            with suppress(LinkError, PeerFault):  # it notices by itself what it lacks
                await self._send_means(stream)

    async def _send_means(self, stream: FrameStream) -> None:
        """For every decision that counts this member: what I fused, as soon as it is there."""
        peer, owned, sent = stream.peer, len(self.seating.needs(self._me)), -1
        while True:
            await self._until(partial(self._blending, sent + 1))
            sent, fused = self._blend_of, self._fused
            if peer not in self._at.works:
                continue
            await self._send(stream, Means(number=sent).frame())
            for index in range(owned):
                await self._until(partial(self._fused_more, sent, index))
                if sent != self._blend_of:
                    break
                await self._send(stream, Frame(Kind.PART, fused[index]))

    def _fused_more(self, number: int, index: int) -> bool:
        return number != self._blend_of or len(self._fused) > index

    async def _adopt_means(self, peer: str, stream: FrameStream) -> None:
        """The other way of a lane to an owner; means of a decision that is no more are skipped."""
        machine, current, index = self._at, -1, 0
        while True:
            await self._until(lambda: machine.owes(peer))
            frame = await self._receive(stream)
            if frame.kind is Kind.MEANS:
                current, index = Means.parse(frame).number, 0
                await self._until(partial(self._blending, current))
                continue
            if frame.kind is not Kind.PART:
                raise PayloadError(f"{frame.kind.name} among the means")
            part = machine.mean(peer, index, memoryview(frame.body))
            index += 1
            await self._adopt(current, part, memoryview(frame.body))
            if index == len(self.seating.needs(peer)):
                self._perform(machine.adopted(peer, current))

    def _blending(self, number: int) -> bool:
        """My own arithmetic for this decision, or a later one, has begun."""
        return self._blend_of >= number

    def _without(self, peer: str, reason: str, acts: list[Act]) -> None:
        if acts:
            self.minutes.removed.setdefault(peer, reason)
            self._perform(acts)

    # ---- arithmetic -------------------------------------------------------------------------

    async def _blend_own(self, number: int) -> None:
        """My share of a decision: all parts when direct, the parts that I own otherwise."""
        machine = self._at
        vector = self.minutes.snapshot
        assert vector is not None
        async with self._bench:
            if machine.number != number:
                return
            self._blend = self._host.subject.blend(vector.vector, self._me, machine.works)
            self._blend_of, self._fused = number, []
            self._notify()
        for index, part in enumerate(self.seating.needs(self._me)):
            payloads = {
                peer: machine.contributions[peer][index]
                for peer in machine.works
                if peer != self._me
            }
            try:
                await self._combine(number, part, payloads)
            except PayloadError as error:
                culprit = await self._culprit(part, payloads)
                if culprit is None:
                    raise
                self._without(culprit, str(error), machine.without(culprit))
                return
        self._perform(machine.blended(number))

    async def _combine(self, number: int, part: int, payloads: Mapping[str, memoryview]) -> None:
        offload = self._tools.offload
        async with self._bench:
            if self._blend is None or self._blend_of != number:
                return
            if self.seating.direct:
                await offload(self._blend.take, part, payloads)
                return
            mean = await offload(self._blend.fuse, part, payloads)
            await offload(self._blend.adopt, part, mean)
            self._fused.append(mean)
            self._notify()

    async def _adopt(self, number: int, part: int, mean: memoryview) -> None:
        async with self._bench:
            if self._blend is not None and self._blend_of == number:
                await self._tools.offload(self._blend.adopt, part, mean)

    async def _culprit(self, part: int, payloads: Mapping[str, memoryview]) -> str | None:
        """Whose payload of this part is not sound by itself."""
        subject, snapshot = self._host.subject, self.minutes.snapshot
        assert snapshot is not None
        async with self._bench:
            for peer, payload in payloads.items():
                trial = subject.blend(snapshot.vector, self._me, {self._me: 1, peer: 1})
                work = trial.take if self.seating.direct else trial.fuse
                try:
                    await self._tools.offload(work, part, {peer: payload})
                except PayloadError:
                    return peer
        return None

    async def _finish(self, number: int) -> None:
        async with self._bench:
            if self._blend is None or self._blend_of != number:
                return
            self.minutes.correction = await self._tools.offload(self._blend.finish)
        self._check_layout()
        self._perform(self._at.finished(number))
