"""A router that hides one host: its address outside is not the one that the host has.

It keeps ports, as Linux's masquerade does while nobody else wants them, and lets a packet in only
from an address and port to which the host has sent before. Works on packets as they come from a TUN
device with offload: checksums are mended by what changed (RFC 1624), unfinished ones too.
"""

from __future__ import annotations

import struct

HEAD_BYTES = 10
"""The virtio_net_hdr before the packet; its first bit says that a checksum is unfinished."""
SOURCE, TARGET = 12, 16
"""Where an IPv4 header has its addresses."""
CHECKSUM_AT = {6: 16, 17: 6}
"""In the headers of TCP and UDP."""
Flow = tuple[int, int, bytes, int]
"""Protocol, inner port, outer address and port."""


class Nat:
    """Between one host (``inside``) and the world that knows it as ``outside``."""

    def __init__(self, inside: bytes, outside: bytes) -> None:
        self._inside = inside
        self._outside = outside
        self._flows: set[Flow] = set()

    def leave(self, packet: bytes) -> bytes | None:
        """The packet as the world sees it; None for what is neither TCP nor UDP."""
        flow = flow_of(packet, SOURCE, TARGET)
        if flow is None:
            return None
        self._flows.add(flow)
        return readdressed(packet, SOURCE, self._outside)

    def enter(self, packet: bytes) -> bytes | None:
        """The packet as the host sees it; None when nobody inside has asked for it."""
        flow = flow_of(packet, TARGET, SOURCE)
        return readdressed(packet, TARGET, self._inside) if flow in self._flows else None


def flow_of(packet: bytes, near: int, far: int) -> Flow | None:
    protocol = packet[HEAD_BYTES + 9]
    if protocol not in CHECKSUM_AT:
        return None
    ports = dict(
        zip((SOURCE, TARGET), struct.unpack_from(">HH", packet, _body(packet)), strict=True)
    )
    address = packet[HEAD_BYTES + far : HEAD_BYTES + far + 4]
    return protocol, ports[near], address, ports[far]


def readdressed(packet: bytes, place: int, address: bytes) -> bytes:
    """``packet`` with another address at ``place``, and checksums that fit."""
    changed = bytearray(packet)
    at = HEAD_BYTES + place
    old, changed[at : at + 4] = bytes(changed[at : at + 4]), address
    _mend(changed, HEAD_BYTES + 10, old, address, unfinished=False)
    field = _body(packet) + CHECKSUM_AT[packet[HEAD_BYTES + 9]]
    _mend(changed, field, old, address, unfinished=bool(packet[0] & 1))
    return bytes(changed)


def _mend(packet: bytearray, at: int, old: bytes, new: bytes, *, unfinished: bool) -> None:
    """An unfinished checksum is the sum itself, a finished one its complement."""
    [total] = struct.unpack_from(">H", packet, at)
    total ^= 0 if unfinished else 0xFFFF
    total += sum(struct.unpack(">HH", new)) + sum(
        half ^ 0xFFFF for half in struct.unpack(">HH", old)
    )
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into(">H", packet, at, total ^ (0 if unfinished else 0xFFFF))


def _body(packet: bytes) -> int:
    return HEAD_BYTES + (packet[HEAD_BYTES] & 15) * 4
