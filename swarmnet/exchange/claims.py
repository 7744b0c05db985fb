"""Claims: which samples a contribution holds, so that none of them counts twice.

A sample has an id of 64 bits. Two peers may hold the same one, because an answer was lost and the
sample was sent again; and a sum cannot be taken apart. So a contribution counts whole or not at
all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from swarmnet.errors import MessageError
from swarmnet.wire.frame import CLAIM_BYTES, MAX_CLAIMS

Ids = tuple[int, ...]
"""Samples, ascending."""


def pack(ids: Iterable[int]) -> bytes:
    """As they travel: sorted, 8 bytes each. Raises ValueError for more than MAX_CLAIMS."""
    ordered = sorted(ids)
    if len(ordered) > MAX_CLAIMS:
        raise ValueError(f"{len(ordered)} claims, {MAX_CLAIMS} at most")
    return struct.pack(f">{len(ordered)}Q", *ordered)


def unpack(packed: bytes) -> Ids:
    """Raises MessageError unless these are ascending ids."""
    if len(packed) % CLAIM_BYTES:
        raise MessageError("claims that are no whole ids")
    ids: Ids = struct.unpack(f">{len(packed) // CLAIM_BYTES}Q", packed)
    if any(one >= next_ for one, next_ in pairwise(ids)):
        raise MessageError("claims out of order, or the same one twice")
    return ids


def colliding(
    members: Sequence[str], claims: Mapping[str, Ids], committed: Callable[[int], bool]
) -> set[str]:
    """Whose contributions must not count, that each sample counts once.

    Whoever claims a sample of an earlier commit; of two that claim the same one the one with fewer
    claims, of equals the later in the order.
    """
    refused, taken = set(), set[int]()
    for peer in sorted(members, key=lambda peer: -len(claims[peer])):  # a stable sort
        ids = claims[peer]
        if not taken.isdisjoint(ids) or any(map(committed, ids)):
            refused.add(peer)
        else:
            taken.update(ids)
    return refused
