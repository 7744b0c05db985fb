"""What a meeting sends, and what becomes of what it receives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate

from swarmnet.errors import LinkError
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.meeting import Meeting
from swarmnet.exchange.pair import Acceptor, MeetingMachine
from swarmnet.exchange.payload import Incoming, Outgoing
from swarmnet.exchange.session import Hooks
from swarmnet.exchange.subject import Subject
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.window import Window


class Preparation:
    """One peer's snapshot on offer, with its payload as far as it is encoded."""

    def __init__(self, around: Surroundings, window: Window, desk: Desk, subject: Subject) -> None:
        self._around = around
        self._window = window
        self._desk = desk
        self._subject = subject
        self._outgoing: Outgoing | None = None

    def prepare(self, meeting: Meeting) -> None:
        """Keep the snapshot that this meeting would use, and begin to encode it."""
        with suppress(LinkError):  # without one the meeting fails where it takes it
            snapshot = self._desk.keep()
            steps = self._window.work(snapshot.step)
            meeting.work = self._subject.effort(steps, self._window.step_s)
            if self._outgoing is None or not self._outgoing.serves(snapshot):
                self._outgoing = Outgoing(self._subject, snapshot, self._around.offload)

    def unused(self) -> None:
        """The meeting took no snapshot. A newer one costs nothing, unless this one is encoded."""
        if self._subject.ready_made:
            self._desk.release()

    def hooks(self, meeting: Meeting, machine: MeetingMachine, begun: Callable[[], None]) -> Hooks:
        """What the session of ``meeting`` calls; ``begun`` when it takes the snapshot."""

        def same_layout() -> None:
            if self._subject.layout != meeting.layout:
                raise LinkError("this peer entered another phase during the meeting")

        def agreed() -> Outgoing:
            meeting.own_act = True
            same_layout()
            snapshot, outgoing = self._desk.take(), self._outgoing
            meeting.snapshot = snapshot
            if outgoing is None or not outgoing.serves(snapshot):
                raise LinkError("the snapshot on offer is outdated")
            meeting.own_act = False
            begun()
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
            self._window.over(snapshot.step, meeting.partner, self._around.clock())

        return Hooks(agreed, landed, verify, apply)

    def _reduction(self, meeting: Meeting, work: int) -> Incoming:
        me, subject = self._around.transport.me, self._subject
        assert meeting.snapshot is not None
        works = {me: meeting.work, meeting.partner: work}
        blend = subject.blend(meeting.snapshot.vector, me, works)
        ends = list(accumulate(subject.part_nbytes(part) for part in range(subject.parts)))
        offload = None if subject.quick else self._around.offload
        return Incoming(blend, ends, meeting.partner, offload)
