"""The frame: twelve bytes of header, then a body whose bound depends on its kind.

    offset  0        4        5       6         8            12
            | magic  | version| kind  | zero    | length     | body ...
            | "SWRM" | u8     | u8    | u16     | u32        |

Integers are big-endian. A reader checks the header before it reads the body, so a peer can
make us hold at most ``BOUNDS[kind]`` bytes that we did not ask for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from swarmnet.errors import FrameError

WIRE_VERSION = 1
MAGIC = b"SWRM"
_HEADER = struct.Struct(">4sBBHI")
HEADER_BYTES = _HEADER.size

PART_BYTES = 2 * 1024 * 1024
"""Payload bytes per PART frame. On busy cores each part costs half a millisecond of hand-overs; on
a link of 100 Mb/s, which takes a sixth of a second for it, the work on it hides behind the next."""


class Kind(IntEnum):
    """What a frame is; the order within a stream is the business of the state machines."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    DIAL = 4
    DIALED = 5
    OFFER = 16
    ACCEPT = 17
    DECLINE = 18
    PART = 19
    HAVE = 20
    ASK = 21
    TELL = 22
    HOLD = 23
    GET = 32
    MANIFEST = 33
    CHUNK = 34
    WANT = 35
    BUSY = 36
    CALL = 48
    JOIN = 49
    ROSTER = 50
    LANE = 51
    GOT = 52
    DECIDE = 53
    MEANS = 54
    COMMIT = 55
    BEAT = 56
    FORWARD = 64
    BACKWARD = 65
    RESUME = 66
    RECEIPT = 67
    FATES = 68
    FORGET = 69
    INQUIRE = 70
    TALLY = 80


_SMALL = 16 * 1024
MAX_CLAIMS = 4096
"""Samples behind one peer's contribution to a step of its stage; each is claimed by 8 bytes."""
CLAIM_BYTES = 8
CHUNK_BYTES = 1024 * 1024
"""Bytes per chunk of a state transfer; each has its own hash in the manifest."""

BOUNDS: dict[Kind, int] = {
    Kind.HELLO: _SMALL,
    Kind.WELCOME: _SMALL,
    Kind.REFUSE: 80 * 1024,
    Kind.DIAL: _SMALL,
    Kind.DIALED: _SMALL,
    Kind.OFFER: _SMALL,
    Kind.ACCEPT: _SMALL,
    Kind.DECLINE: _SMALL,
    Kind.PART: PART_BYTES,
    Kind.HAVE: _SMALL,
    Kind.ASK: _SMALL,
    Kind.TELL: _SMALL,
    Kind.HOLD: _SMALL,
    Kind.GET: _SMALL,
    Kind.MANIFEST: 8 * 1024 * 1024,
    Kind.CHUNK: CHUNK_BYTES,
    Kind.WANT: _SMALL,
    Kind.BUSY: _SMALL,
    Kind.CALL: _SMALL,
    Kind.JOIN: _SMALL,
    Kind.ROSTER: _SMALL,
    Kind.LANE: _SMALL,
    Kind.GOT: _SMALL + MAX_CLAIMS * CLAIM_BYTES,
    Kind.DECIDE: 2 * 1024 * 1024,
    Kind.MEANS: _SMALL,
    Kind.COMMIT: _SMALL,
    Kind.BEAT: _SMALL,
    Kind.FORWARD: 2 * _SMALL,
    Kind.BACKWARD: _SMALL,
    Kind.RESUME: 2 * _SMALL,
    Kind.RECEIPT: _SMALL,
    Kind.FATES: _SMALL,
    Kind.FORGET: _SMALL,
    Kind.INQUIRE: _SMALL,
    Kind.TALLY: _SMALL,
}


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: the body that follows is of a known kind and within its bound."""

    kind: Kind
    length: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame. ``body`` may be a view into somebody's buffer: it is only read."""

    kind: Kind
    body: bytes | memoryview

    @property
    def wire_bytes(self) -> int:
        return HEADER_BYTES + len(self.body)


def encode_header(kind: Kind, length: int) -> bytes:
    """The twelve bytes before a body of ``length`` bytes. Raises FrameError above the bound."""
    if length > BOUNDS[kind]:
        raise FrameError(f"{kind.name} of {length} bytes is above its bound of {BOUNDS[kind]}")
    return _HEADER.pack(MAGIC, WIRE_VERSION, kind, 0, length)


def parse_header(raw: bytes | memoryview) -> Header:
    """Check ``HEADER_BYTES`` bytes. Raises FrameError when they do not begin a frame of ours."""
    magic, version, kind, zero, length = _HEADER.unpack(raw)
    if magic != MAGIC:
        raise FrameError(f"not a swarmnet frame: begins with {bytes(magic)!r}")
    if version != WIRE_VERSION:
        raise FrameError(f"wire version {version}, this peer speaks {WIRE_VERSION}")
    if kind not in BOUNDS or zero:
        raise FrameError(f"unknown frame kind {kind} (reserved bits {zero})")
    if length > BOUNDS[Kind(kind)]:
        raise FrameError(f"{Kind(kind).name} of {length} bytes is above {BOUNDS[Kind(kind)]}")
    return Header(Kind(kind), length)


class FrameReader:
    """Collects bytes as they come and yields whole frames; holds at most one partial frame.

    The network shell reads exact lengths instead; this form serves tests, tools and any
    transport that delivers bytes in pieces of its own choosing.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: Header | None = None

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Add bytes and yield what became whole. Raises FrameError at the first bad header."""
        self._buffer += data
        while True:
            if self._header is None:
                if len(self._buffer) < HEADER_BYTES:
                    return
                self._header = parse_header(memoryview(self._buffer)[:HEADER_BYTES])
                del self._buffer[:HEADER_BYTES]
            if len(self._buffer) < self._header.length:
                return
            body = bytes(self._buffer[: self._header.length])
            del self._buffer[: self._header.length]
            frame, self._header = Frame(self._header.kind, body), None
            yield frame

    @property
    def idle(self) -> bool:
        """Between frames: the only place where a stream may end without loss."""
        return self._header is None and not self._buffer
