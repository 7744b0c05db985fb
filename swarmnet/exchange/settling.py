"""How a meeting's end becomes something to apply, to ask about later, or to forget.

Everything here happens in the network's loop, in one step without waiting; the training thread
applies what it finds on the desk.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

from swarmnet.errors import LinkError
from swarmnet.events import ExchangeDone
from swarmnet.exchange.agreement import Agreement
from swarmnet.exchange.desk import Desk, Settlement, Snapshot
from swarmnet.exchange.ledger import Open, Pending
from swarmnet.exchange.meeting import Meeting, Scheduled
from swarmnet.exchange.pair import Acceptor, End, MeetingMachine
from swarmnet.exchange.session import Session
from swarmnet.exchange.subject import Subject
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.window import Window

KEPT_ROUNDS = 256
"""Many times the windows for which a partner asks about a round: one that was down meanwhile
begins anew when it is back."""


class Settling:
    """Turns ends into settlements; knows which of others' rounds are in the weights."""

    def __init__(self, around: Surroundings, window: Window, desk: Desk, subject: Subject) -> None:
        self._around = around
        self._window = window
        self._desk = desk
        self._subject = subject
        self.pending: Pending[Any] = Pending()
        self.in_weights: deque[tuple[str, int]] = deque(maxlen=KEPT_ROUNDS)
        """Others' rounds that are in the weights: a checkpoint keeps both or neither."""
        self.scheduled = Scheduled()
        self.agreement = Agreement()

    def conclude(self, meeting: Meeting, machine: MeetingMachine, session: Session | None) -> End:
        """The stream is closed: act on what the machine knows."""
        end = machine.end or End.FAILED
        if meeting.withdrawn:
            return end
        event = _event(meeting, machine, session)
        if end is End.APPLIED:
            self._met(meeting, event, decided=isinstance(machine, Acceptor))
        elif end is End.PENDING:
            self._open(meeting, event)
        else:
            # Gone before its first PART: somebody else was faster, so it is no suspect.
            cut = session is not None and session.cut
            meeting.withdrawn = isinstance(machine, Acceptor) and cut and not machine.filled
            self._failed(meeting, event)
        return end

    def alone(self, round_: int) -> None:
        """Nobody was free while the window was ripe."""
        event = ExchangeDone(phase="train", outcome="solo", partner="", round=round_)
        if not self._subject.steps_alone:
            self._desk.release()
            self._window.over(None, None, self._around.clock())
            self._around.emit(event)
            return
        with suppress(LinkError):  # a boundary in between found that it is not wanted any more
            self._step_alone(self._desk.take(), event)

    def _step_alone(self, snapshot: Snapshot, event: ExchangeDone) -> None:

        def apply() -> None:
            self._subject.apply_solo(snapshot.vector)

        self._window.over(snapshot.step, None, self._around.clock())
        self._desk.settle(Settlement(apply, event, snapshot.step, returns=snapshot))

    def late(self, item: Open[Any], correction: Any) -> None:
        """The partner of an open question had applied."""

        def apply() -> None:
            self._subject.apply_late(correction)
            self.pending.settled(item)

        if item.round == self.scheduled.pending_round:
            self.scheduled.met = True
        if item.phase == "consensus":
            self.agreement.met(item.peer, None)
        event = ExchangeDone(phase=item.phase, outcome="late", partner=item.peer, round=item.round)
        self._desk.settle(Settlement(apply, event, item.step, returns=None))

    def _met(self, meeting: Meeting, event: ExchangeDone, *, decided: bool) -> None:
        snapshot, correction = meeting.agreed()

        def apply() -> None:
            self._subject.apply_met(snapshot.vector, correction.vector)
            if decided:
                self.in_weights.append((meeting.partner, meeting.round))

        self._around.membership.clear(meeting.partner)
        if meeting.phase == "consensus":
            meeting.scheduled.met = True
            self.agreement.met(meeting.partner, correction.distance)
        self._desk.settle(Settlement(apply, event, snapshot.step, returns=snapshot))

    def _open(self, meeting: Meeting, event: ExchangeDone) -> None:
        """I said HAVE and heard none: my own part now, the correction when the partner tells."""
        snapshot, correction = meeting.agreed()
        if meeting.phase == "consensus":
            meeting.scheduled.pending_round = meeting.round
        self.pending.add(
            Open(
                peer=meeting.partner,
                round=meeting.round,
                correction=correction.vector,
                window=self._window.number,
                phase=meeting.phase,
                step=snapshot.step,
            )
        )

        def apply() -> None:
            self._subject.apply_solo(snapshot.vector)

        self._suspect(meeting.partner)
        self._window.over(snapshot.step, None, self._around.clock())
        self._desk.settle(Settlement(apply, event, snapshot.step, returns=snapshot))

    def _failed(self, meeting: Meeting, event: ExchangeDone) -> None:
        self._window.unreachable(meeting.partner)
        if not (meeting.own_act or meeting.withdrawn):
            self._suspect(meeting.partner)
        if meeting.snapshot is not None:
            self._desk.put_back(meeting.snapshot)
        self._around.emit(event)

    def _suspect(self, peer: str) -> None:
        retry_s = self._around.links.retry_s(peer)
        self._around.membership.suspect(peer, self._around.clock(), retry_s)


def _event(meeting: Meeting, machine: MeetingMachine, session: Session | None) -> ExchangeDone:
    timing = meeting.timing
    return ExchangeDone(
        phase=meeting.phase,
        outcome=(machine.end or End.FAILED).value,
        partner=meeting.partner,
        round=meeting.round,
        seconds=meeting.ended - meeting.began,
        bytes_sent=session.bytes_sent if session else 0,
        bytes_received=session.bytes_received if session else 0,
        distance=meeting.correction.distance if meeting.correction else 0.0,
        reason=machine.reason,
        called=timing.called,
        answer_s=timing.answer_s,
        start_s=timing.start_s,
        send_s=timing.send_s,
        receive_s=timing.receive_s,
        payload_bytes=timing.payload_received,
    )
