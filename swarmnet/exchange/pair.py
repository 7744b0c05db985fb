"""State machines that see the frames of one meeting, or one farewell, and never a socket.

The protocol is the tables of ``states``; here frames are read into its events, and its actions
get their data. A machine takes a frame or a fact and returns the actions for its shell, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from swarmnet.errors import MessageError, PayloadError
from swarmnet.exchange.states import (
    ACCEPTOR,
    ENDS,
    HEIR,
    LEAVER,
    OFFERER,
    Do,
    End,
    Event,
    Say,
    State,
    Table,
)
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Accept, Decline, Have, Hold, Offer

__all__ = [
    "Acceptor",
    "Action",
    "Do",
    "End",
    "Heir",
    "Leaver",
    "Machine",
    "MeetingMachine",
    "Offerer",
    "Reserve",
    "Send",
]

EVENTS = {
    Kind.ACCEPT: Event.ACCEPT,
    Kind.HOLD: Event.HOLD,
    Kind.DECLINE: Event.DECLINE,
    Kind.PART: Event.PART,
    Kind.HAVE: Event.HAVE,
}


@dataclass(frozen=True)
class Send:
    """Queue this frame behind whatever is being sent."""

    frame: Frame


Action = Do | Send

Reserve = Callable[[int], bytearray]
"""Where the partner's payload goes: called once a meeting is agreed, with the agreed size."""


class _Side:
    """What both roles share: the way through a table, and collecting a payload."""

    table: ClassVar[Table]

    def __init__(self, offer: Offer, reserve: Reserve) -> None:
        self.offer = offer
        self.nbytes = offer.nbytes
        self.state = State.NEW
        self.reason = ""
        self.received = bytearray()
        self.filled = 0
        self._reserve = reserve

    @property
    def end(self) -> End | None:
        return ENDS.get(self.state)

    @property
    def landing(self) -> memoryview:
        """Where the next PART's body belongs: a transport that puts it there saves a copy."""
        return memoryview(self.received)[self.filled :]

    def start(self) -> list[Action]:
        return self._take(Event.START)

    def on_frame(self, frame: Frame) -> list[Action]:
        """Raises MessageError or PayloadError at whatever is not expected now."""
        event = EVENTS.get(frame.kind)
        if event is None or (self.state, event) not in self.table:
            role, at = type(self).__name__.lower(), self.state.value.lower()
            raise MessageError(f"{frame.kind.name} is not expected by the {role} while {at}")
        if event is Event.PART and self._collect(frame):
            event = Event.LAST_PART
        self._read(frame)
        return self._take(event)

    def verified(self) -> list[Action]:
        """The partner's payload is sound."""
        return self._take(Event.VERIFIED)

    def lost(self, reason: str) -> None:
        """The stream is gone (cut, deadline, fault of the partner). Nothing changes an end."""
        if self.end is None:
            self.reason = reason
            self._take(Event.LOST)

    def _take(self, event: Event) -> list[Action]:
        row = self.table[self.state, event]
        self.state = row.to
        return [Send(self._word(do)) if isinstance(do, Say) else do for do in row.actions]

    def _collect(self, frame: Frame) -> bool:
        """Whether the payload is whole now."""
        body = frame.body
        if self.filled + len(body) > self.nbytes or not body:
            raise PayloadError(f"more payload than the {self.nbytes} bytes agreed on")
        landed = isinstance(body, memoryview) and body.obj is self.received
        if not landed:
            self.received[self.filled : self.filled + len(body)] = body
        self.filled += len(body)
        return self.filled == self.nbytes

    def _read(self, frame: Frame) -> None:
        """Take in what an expected frame says. Raises MessageError where it makes no sense."""
        raise NotImplementedError

    def _word(self, say: Say) -> Frame:
        """The frame for an action of the table."""
        raise NotImplementedError


def _check_have(frame: Frame, round_: int) -> None:
    if Have.parse(frame).round != round_:
        raise MessageError("HAVE names another round than this meeting's")


class Offerer(_Side):
    """The side that opened the stream; the only one that can end up not knowing."""

    table = OFFERER

    def __init__(self, offer: Offer, reserve: Reserve = bytearray) -> None:
        super().__init__(offer, reserve)
        self.accept: Accept | None = None
        self.decline: Decline | None = None

    @property
    def held(self) -> bool:
        """The acceptor asked for patience, and has not said more yet."""
        return self.state is State.HELD

    def _read(self, frame: Frame) -> None:
        if frame.kind is Kind.HOLD:
            if Hold.parse(frame).round != self.offer.round:
                raise MessageError("HOLD names another round than this meeting's")
        elif frame.kind is Kind.DECLINE:
            self.decline = Decline.parse(frame)
            self.reason = self.decline.reason
        elif frame.kind is Kind.ACCEPT:
            self.accept = Accept.parse(frame)
            if self.accept.nbytes != self.nbytes:
                raise MessageError("ACCEPT announces a payload of another size")
            self.received = self._reserve(self.nbytes)
        elif frame.kind is Kind.HAVE:
            assert self.accept is not None
            _check_have(frame, self.accept.round)

    def _word(self, say: Say) -> Frame:
        return self.offer.frame() if say is Say.OFFER else Have(round=self.offer.round).frame()


class _Decider(_Side):
    """The side that was asked; it decides, so it always knows.

    ``commit`` asks the ledger, at the moment of rule 4, whether this round may still be applied.
    """

    def __init__(
        self,
        offer: Offer,
        accept: Accept,
        commit: Callable[[], bool],
        reserve: Reserve = bytearray,
    ) -> None:
        super().__init__(offer, reserve)
        self.accept = accept
        self._commit = commit

    def start(self) -> list[Action]:
        self.received = self._reserve(self.nbytes)
        return super().start()

    def _take(self, event: Event) -> list[Action]:
        if self.table[self.state, event].to is not State.DECIDING:
            return super()._take(event)
        granted = self._commit()  # first: whoever fails in it leaves a state that can be lost
        self.reason = "" if granted else "dropped before it was whole"
        super()._take(event)
        return super()._take(Event.GRANTED if granted else Event.REFUSED)

    def _read(self, frame: Frame) -> None:
        if frame.kind is Kind.HAVE:
            _check_have(frame, self.offer.round)

    def _word(self, say: Say) -> Frame:
        return self.accept.frame() if say is Say.ACCEPT else Have(round=self.accept.round).frame()


class Acceptor(_Decider):
    """The side of a meeting that was asked."""

    table = ACCEPTOR


class Heir(_Decider):
    """Takes over what a leaver hands it; sends no payload of its own."""

    table = HEIR


class Leaver(_Side):
    """Hands its newest work to an heir; unsure from its last PART until the heir's HAVE."""

    table = LEAVER

    def __init__(self, offer: Offer) -> None:
        super().__init__(offer, bytearray)
        self.decline: Decline | None = None

    @property
    def giving(self) -> bool:
        """The heir has accepted, and not all of the payload has left."""
        return self.state is State.GIVING

    def all_out(self) -> None:
        """The last PART is about to leave: from here on only the heir knows."""
        self._take(Event.ALL_OUT)

    def _read(self, frame: Frame) -> None:
        if frame.kind is Kind.DECLINE:
            self.decline = Decline.parse(frame)
            self.reason = self.decline.reason
        elif frame.kind is Kind.ACCEPT:
            if Accept.parse(frame).nbytes:
                raise MessageError("ACCEPT of a farewell announces a payload")
        else:
            _check_have(frame, self.offer.round)

    def _word(self, say: Say) -> Frame:
        return self.offer.frame()


MeetingMachine = Offerer | Acceptor
Machine = MeetingMachine | Leaver | Heir
