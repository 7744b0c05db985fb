"""The protocol of one meeting: two state machines that see frames and never a socket.

Rules
-----
1. The *offerer* opens a stream and says OFFER; the *acceptor* answers ACCEPT or DECLINE.
2. After ACCEPT both send their payload, in PART frames, at the same time.
3. The offerer says HAVE when it holds the acceptor's payload and found it sound. The acceptor
   says HAVE only after it holds the offerer's payload *and* the offerer's HAVE.
4. A side applies when it holds the payload and the partner's HAVE. So the acceptor decides:
   before the offerer's HAVE reached it, it may still drop; from then on it has applied.
5. The offerer, having said HAVE and heard none, does not know. It keeps the correction as
   *pending* and asks later; the acceptor's ledger answers, and an unknown round is answered
   ``dropped`` and can never be applied afterwards.

Faults of an ordered, reliable stream are a cut at any byte, a freeze (a deadline turns it into a
cut), a crash, a restart, and the same (peer, round) on another stream. Rule 4 leaves one uncertain
side instead of two:

    offerer   OFFER ----->            <-- PART* -->           HAVE ----------->
    acceptor          <----- ACCEPT                                  <--------- HAVE, applied
    cut here:     nobody applies          nobody applies         ?: pending   both apply

A machine takes a frame or a fact and returns the actions for its shell, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from swarmnet.errors import MessageError, PayloadError
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Accept, Decline, Have, Offer


class Do(Enum):
    """Actions without data."""

    SEND_PAYLOAD = auto()
    """Stream my own payload while frames keep arriving."""
    VERIFY = auto()
    """The partner's payload is whole: decode and check it, then call ``verified``."""
    APPLY = auto()
    """Both sides may count on each other now: settle the correction."""
    CLOSE = auto()
    """I read the last frame: close the stream."""
    AWAIT_CLOSE = auto()
    """The partner reads the last frame: let it close first."""


@dataclass(frozen=True)
class Send:
    """Queue this frame behind whatever is being sent."""

    frame: Frame


Action = Do | Send


class End(Enum):
    """How a meeting ended, from one side."""

    APPLIED = "ok"
    DECLINED = "declined"
    FAILED = "failed"
    PENDING = "pending"


Reserve = Callable[[int], bytearray]
"""Where the partner's payload goes: called once a meeting is agreed, with the agreed size."""


class _Side:
    """What both roles share: collecting a payload of a known length."""

    def __init__(self, offer: Offer, reserve: Reserve) -> None:
        self.offer = offer
        self.nbytes = offer.nbytes
        self.end: End | None = None
        self.reason = ""
        self.received = bytearray()
        self.filled = 0
        self._reserve = reserve

    @property
    def landing(self) -> memoryview:
        """Where the next PART's body belongs: a transport that puts it there saves a copy."""
        return memoryview(self.received)[self.filled :]

    def _collect(self, frame: Frame) -> list[Action]:
        body = frame.body
        if self.filled == self.nbytes or self.filled + len(body) > self.nbytes or not body:
            raise PayloadError(f"more payload than the {self.nbytes} bytes agreed on")
        landed = isinstance(body, memoryview) and body.obj is self.received
        if not landed:
            self.received[self.filled : self.filled + len(body)] = body
        self.filled += len(body)
        return [Do.VERIFY] if self.filled == self.nbytes else []

    def _finish(self, end: End, reason: str = "") -> None:
        self.end, self.reason = end, reason


class Offerer(_Side):
    """The side that opened the stream; the only one that can end up not knowing."""

    def __init__(self, offer: Offer, reserve: Reserve = bytearray) -> None:
        super().__init__(offer, reserve)
        self.accept: Accept | None = None
        self.decline: Decline | None = None
        self._have_sent = False

    def start(self) -> list[Action]:
        return [Send(self.offer.frame())]

    def on_frame(self, frame: Frame) -> list[Action]:
        """Raises MessageError or PayloadError at whatever is not expected now."""
        if self.accept is None:
            return self._on_answer(frame)
        if frame.kind is Kind.PART and not self._have_sent:
            return self._collect(frame)
        if frame.kind is Kind.HAVE and self._have_sent and self.end is None:
            if Have.parse(frame).round != self.accept.round:
                raise MessageError("HAVE names another round than its ACCEPT")
            self._finish(End.APPLIED)
            return [Do.APPLY, Do.CLOSE]
        raise MessageError(f"{frame.kind.name} is not expected by the offerer now")

    def verified(self) -> list[Action]:
        """The acceptor's payload is sound: from here on it may count on us."""
        self._have_sent = True
        return [Send(Have(round=self.offer.round).frame())]

    def lost(self, reason: str) -> None:
        """The stream is gone (cut, deadline, fault of the partner)."""
        if self.end is None:
            self._finish(End.PENDING if self._have_sent else End.FAILED, reason)

    def _on_answer(self, frame: Frame) -> list[Action]:
        if frame.kind is Kind.DECLINE:
            self.decline = Decline.parse(frame)
            self._finish(End.DECLINED, self.decline.reason)
            return [Do.CLOSE]
        self.accept = Accept.parse(frame)
        if self.accept.nbytes != self.offer.nbytes:
            raise MessageError("ACCEPT announces a payload of another size")
        self.received = self._reserve(self.nbytes)
        return [Do.SEND_PAYLOAD]


class Acceptor(_Side):
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
        self._sound = False
        self._have_received = False

    def start(self) -> list[Action]:
        self.received = self._reserve(self.nbytes)
        return [Send(self.accept.frame()), Do.SEND_PAYLOAD]

    def on_frame(self, frame: Frame) -> list[Action]:
        """Raises MessageError or PayloadError at whatever is not expected now."""
        if frame.kind is Kind.PART:
            return self._collect(frame)
        if frame.kind is Kind.HAVE and self.filled == self.nbytes and not self._have_received:
            if Have.parse(frame).round != self.offer.round:
                raise MessageError("HAVE names another round than its OFFER")
            self._have_received = True
            return self._maybe_apply()
        raise MessageError(f"{frame.kind.name} is not expected by the acceptor now")

    def verified(self) -> list[Action]:
        self._sound = True
        return self._maybe_apply()

    def lost(self, reason: str) -> None:
        if self.end is None:
            self._finish(End.FAILED, reason)

    def _maybe_apply(self) -> list[Action]:
        if not (self._sound and self._have_received):
            return []
        if not self._commit():
            self._finish(End.FAILED, "dropped before it was whole")
            return [Do.CLOSE]
        self._finish(End.APPLIED)
        return [Do.APPLY, Send(Have(round=self.accept.round).frame()), Do.AWAIT_CLOSE]


Machine = Offerer | Acceptor
