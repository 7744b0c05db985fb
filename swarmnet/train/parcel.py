"""A replica's state as columns: the form in which it crosses the network to a joiner.

A *column* is the same span of parameters in every vector of the state (weights, slow weights,
momentum, both moments), as float32, one vector after the other. It is one chunk, with one hash, and
comes whole from one donor. Replicas of a swarm differ by their disagreement, and so much does a
column of one differ from the same column of another; within a column all belong together. So a
state may be put together from columns of several replicas: its expected distance from the swarm's
mean is that of a single donor. Peers of one stage hold the same bits, and there a joiner takes
only columns of one version.

What is no vector, a few scalars, goes with the description.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from swarmnet.errors import PayloadError
from swarmnet.wire.frame import CHUNK_BYTES

_ALIGN = 1024


class Parcel:
    """Named tensors cut into columns; nothing is copied until a column is asked for.

    ``tensors`` are float32 on the CPU: (P,) each, or a few values. They must not change meanwhile,
    but for what ``place`` writes.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        length = max((tensor.numel() for tensor in tensors.values()), default=0)
        self._vectors = [t for t in tensors.values() if t.ndim == 1 and t.numel() == length]
        self._scalars = {n: t for n, t in tensors.items() if t.ndim != 1 or t.numel() != length}
        self.tensors = dict(tensors)
        self.index = [[name, list(tensor.shape)] for name, tensor in tensors.items()]
        self._length = length
        width = max(len(self._vectors), 1)
        columns = CHUNK_BYTES // (4 * width)
        self._columns = max(columns - columns % _ALIGN, 1)
        self.chunks = -(-length // self._columns)
        self.nbytes = 4 * width * length

    def size(self, chunk: int) -> int:
        """Bytes of one column."""
        span = self._span(chunk)
        return 4 * len(self._vectors) * len(range(span.start, span.stop))

    def buffer(self) -> Tensor:
        """Where the largest column fits."""
        return torch.empty(len(self._vectors) * min(self._columns, self._length))

    def column(self, chunk: int, buffer: Tensor) -> memoryview:
        """The bytes of one column, in ``buffer``: valid until it is used again."""
        span = self._span(chunk)
        own = buffer[: self.size(chunk) // 4].view(len(self._vectors), -1)
        for row, vector in zip(own, self._vectors, strict=True):
            row.copy_(vector[span])
        return own.view(-1).numpy().data.cast("B")

    def place(self, chunk: int, body: memoryview) -> None:
        """Write one column. Raises PayloadError when values are not finite; nothing is written."""
        if len(body) != self.size(chunk):
            raise PayloadError(f"a column of {len(body)} bytes instead of {self.size(chunk)}")
        own = torch.frombuffer(body, dtype=torch.float32)
        if not own.sum().isfinite():
            raise PayloadError("a column with values that are not finite")
        span = self._span(chunk)
        for row, vector in zip(own.view(len(self._vectors), -1), self._vectors, strict=True):
            vector[span].copy_(row)

    def hashes(self, first: int, last: int) -> list[bytes]:
        """blake3 of the columns from ``first`` up to ``last``."""
        buffer = self.buffer()
        columns = range(first, min(last, self.chunks))
        return [blake3(self.column(chunk, buffer)).digest() for chunk in columns]

    # ---- what is no vector ----------------------------------------------------------------------

    def scalars(self) -> dict[str, list[float]]:
        return {name: tensor.reshape(-1).tolist() for name, tensor in self._scalars.items()}

    def take_scalars(self, given: Any) -> None:
        """Write what another's ``scalars`` said. Raises PayloadError when it does not fit."""
        values = self.readable_scalars(given)
        for name, tensor in self._scalars.items():
            tensor.copy_(values[name].view(tensor.shape))

    def readable_scalars(self, given: Any) -> dict[str, Tensor]:
        """Raises PayloadError on other names, numbers or sizes than this state has."""
        try:
            values = {str(k): torch.tensor(v, dtype=torch.float32) for k, v in given.items()}
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise PayloadError("a state whose scalars cannot be read") from error
        sizes = {name: tensor.numel() for name, tensor in self._scalars.items()}
        sound = all(bool(value.isfinite().all()) for value in values.values())
        if not sound or {name: value.numel() for name, value in values.items()} != sizes:
            raise PayloadError("a state whose scalars do not fit this model")
        return values

    def _span(self, chunk: int) -> slice:
        start = chunk * self._columns
        return slice(start, min(start + self._columns, self._length))
