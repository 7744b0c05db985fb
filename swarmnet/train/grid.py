"""How a replica's contribution is cut into parts: columns of a (width, P) matrix."""

from __future__ import annotations

from swarmnet.codec import Codec
from swarmnet.wire.frame import PART_BYTES

PART_VALUES = PART_BYTES // 4
"""Values per part, however few bytes a codec makes of each."""


class Grid:
    """Parts of equal columns (the last one shorter); each is encoded by itself."""

    def __init__(self, codec: Codec, width: int, numel: int) -> None:
        self._codec = codec
        self.width = width
        self.numel = numel
        self._columns = PART_VALUES // width
        while codec.nbytes(width * self._columns) > PART_BYTES:
            self._columns //= 2
        self.parts: int = -(-numel // self._columns)
        self.nbytes: int = sum(self.part_nbytes(part) for part in range(self.parts))

    def span(self, part: int) -> slice:
        """The columns of ``part``."""
        start = part * self._columns
        return slice(start, min(start + self._columns, self.numel))

    def values(self, part: int) -> int:
        """Values in ``part``, all rows together."""
        span = self.span(part)
        return self.width * len(range(span.start, span.stop))

    def part_nbytes(self, part: int) -> int:
        return self._codec.nbytes(self.values(part))
