"""Bytes to frames and back, without IO: every length is bounded before a byte is stored.

bytes --parse_header--> Header --(length bytes)--> Frame --messages.parse--> Message
"""

from swarmnet.wire.frame import (
    HEADER_BYTES,
    WIRE_VERSION,
    Frame,
    FrameReader,
    Header,
    Kind,
    encode_header,
    parse_header,
)

__all__ = [
    "HEADER_BYTES",
    "WIRE_VERSION",
    "Frame",
    "FrameReader",
    "Header",
    "Kind",
    "encode_header",
    "parse_header",
]
