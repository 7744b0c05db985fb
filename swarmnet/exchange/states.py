"""The protocol of one meeting as two tables; ``pair`` runs them and holds no rule besides.

Rules
-----
1. The *offerer* opens a stream and says OFFER; the *acceptor* answers ACCEPT or DECLINE, or HOLD
   and one of the two when its window has opened.
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

A farewell is shorter, for one payload goes one way: a *leaver* hands an *heir* the work that nobody
has of it. The heir decides, so again only the one who called can be unsure, and only from its last
PART on:

    leaver    OFFER (farewell) ----->             PART* ------------->
    heir                       <----- ACCEPT                 <--------- HAVE, inherited
    cut here:      nobody inherits        nobody inherits       ?: pending

What has no row is not expected in that state: a frame is the partner's fault, a fact our bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import NamedTuple


class State(Enum):
    """Where one side of a meeting is. The names are those of the drawn diagrams."""

    NEW = "New"
    OFFERED = "Offered"
    """I called; whether we meet is the other's choice."""
    HELD = "Held"
    """It will meet me as soon as its window opens."""
    COLLECTING = "Collecting"
    """Agreed: both payloads are under way."""
    CHECKING = "Checking"
    """The partner's payload is whole and is being decoded."""
    PROMISED = "Promised"
    """Acceptor: the offerer said HAVE while I still check."""
    SOUND = "Sound"
    """Acceptor: its payload is sound; its HAVE is missing."""
    DECIDING = "Deciding"
    """Acceptor: both are here, the ledger is asked. No frame and no fault comes between."""
    GIVING = "Giving"
    """Leaver: agreed; my payload is under way, and not all of it has left."""
    UNSURE = "Unsure"
    """I said HAVE, or sent all that I leave; only the other side knows what becomes of it."""
    APPLIED = "Applied"
    DECLINED = "Declined"
    FAILED = "Failed"
    PENDING = "Pending"


class Event(Enum):
    """What can happen to one side: a frame of the partner, or a fact of its own."""

    START = "start"
    ACCEPT = "ACCEPT"
    HOLD = "HOLD"
    DECLINE = "DECLINE"
    PART = "PART"
    LAST_PART = "last PART"
    HAVE = "HAVE"
    ALL_OUT = "last PART leaves"
    VERIFIED = "payload sound"
    GRANTED = "ledger commits"
    REFUSED = "dropped before"
    LOST = "stream lost"


class Say(Enum):
    """Actions that become a frame of this meeting."""

    OFFER = auto()
    ACCEPT = auto()
    HAVE = auto()


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


class End(Enum):
    """How a meeting ended, from one side."""

    APPLIED = "ok"
    DECLINED = "declined"
    FAILED = "failed"
    PENDING = "pending"


class Row(NamedTuple):
    """The rest of a table's line: where to go, and what to do there, in order."""

    to: State
    actions: tuple[Say | Do, ...] = ()


Table = Mapping[tuple[State, Event], Row]
S, E = State, Event

OFFERER: Table = MappingProxyType(
    {
        (S.NEW, E.START): Row(S.OFFERED, (Say.OFFER,)),
        (S.NEW, E.LOST): Row(S.FAILED),
        (S.OFFERED, E.ACCEPT): Row(S.COLLECTING, (Do.SEND_PAYLOAD,)),
        (S.OFFERED, E.DECLINE): Row(S.DECLINED, (Do.CLOSE,)),
        (S.OFFERED, E.LOST): Row(S.FAILED),
        (S.OFFERED, E.HOLD): Row(S.HELD),
        (S.HELD, E.ACCEPT): Row(S.COLLECTING, (Do.SEND_PAYLOAD,)),
        (S.HELD, E.DECLINE): Row(S.DECLINED, (Do.CLOSE,)),
        (S.HELD, E.LOST): Row(S.FAILED),
        (S.COLLECTING, E.PART): Row(S.COLLECTING),
        (S.COLLECTING, E.LAST_PART): Row(S.CHECKING, (Do.VERIFY,)),
        (S.COLLECTING, E.LOST): Row(S.FAILED),
        (S.CHECKING, E.VERIFIED): Row(S.UNSURE, (Say.HAVE,)),
        (S.CHECKING, E.LOST): Row(S.FAILED),
        (S.UNSURE, E.HAVE): Row(S.APPLIED, (Do.APPLY, Do.CLOSE)),
        (S.UNSURE, E.LOST): Row(S.PENDING),
    }
)
ACCEPTOR: Table = MappingProxyType(
    {
        (S.NEW, E.START): Row(S.COLLECTING, (Say.ACCEPT, Do.SEND_PAYLOAD)),
        (S.NEW, E.LOST): Row(S.FAILED),
        (S.COLLECTING, E.PART): Row(S.COLLECTING),
        (S.COLLECTING, E.LAST_PART): Row(S.CHECKING, (Do.VERIFY,)),
        (S.COLLECTING, E.LOST): Row(S.FAILED),
        (S.CHECKING, E.VERIFIED): Row(S.SOUND),
        (S.CHECKING, E.HAVE): Row(S.PROMISED),
        (S.CHECKING, E.LOST): Row(S.FAILED),
        (S.PROMISED, E.VERIFIED): Row(S.DECIDING),
        (S.PROMISED, E.LOST): Row(S.FAILED),
        (S.SOUND, E.HAVE): Row(S.DECIDING),
        (S.SOUND, E.LOST): Row(S.FAILED),
        (S.DECIDING, E.GRANTED): Row(S.APPLIED, (Do.APPLY, Say.HAVE, Do.AWAIT_CLOSE)),
        (S.DECIDING, E.REFUSED): Row(S.FAILED, (Do.CLOSE,)),
    }
)
LEAVER: Table = MappingProxyType(
    {
        (S.NEW, E.START): Row(S.OFFERED, (Say.OFFER,)),
        (S.NEW, E.LOST): Row(S.FAILED),
        (S.OFFERED, E.ACCEPT): Row(S.GIVING, (Do.SEND_PAYLOAD,)),
        (S.OFFERED, E.DECLINE): Row(S.DECLINED, (Do.CLOSE,)),
        (S.OFFERED, E.LOST): Row(S.FAILED),
        (S.GIVING, E.ALL_OUT): Row(S.UNSURE),
        (S.GIVING, E.LOST): Row(S.FAILED),
        (S.UNSURE, E.HAVE): Row(S.APPLIED, (Do.APPLY, Do.CLOSE)),
        (S.UNSURE, E.LOST): Row(S.PENDING),
    }
)
HEIR: Table = MappingProxyType(
    {
        (S.NEW, E.START): Row(S.COLLECTING, (Say.ACCEPT,)),
        (S.NEW, E.LOST): Row(S.FAILED),
        (S.COLLECTING, E.PART): Row(S.COLLECTING),
        (S.COLLECTING, E.LAST_PART): Row(S.CHECKING, (Do.VERIFY,)),
        (S.COLLECTING, E.LOST): Row(S.FAILED),
        (S.CHECKING, E.VERIFIED): Row(S.DECIDING),
        (S.CHECKING, E.LOST): Row(S.FAILED),
        (S.DECIDING, E.GRANTED): Row(S.APPLIED, (Do.APPLY, Say.HAVE, Do.AWAIT_CLOSE)),
        (S.DECIDING, E.REFUSED): Row(S.FAILED, (Do.CLOSE,)),
    }
)
ENDS: Mapping[State, End] = MappingProxyType(
    {
        S.APPLIED: End.APPLIED,
        S.DECLINED: End.DECLINED,
        S.FAILED: End.FAILED,
        S.PENDING: End.PENDING,
    }
)
