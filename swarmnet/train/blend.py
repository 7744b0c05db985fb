"""The arithmetic of one meeting on a replica's vectors, part by part.

All members decode every payload, their own too, in the order of peer ids: they compute with the
same numbers whatever a codec lost.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swarmnet.codec import Codec
from swarmnet.exchange.subject import Correction
from swarmnet.outer import Outer
from swarmnet.reduce import Reduce
from swarmnet.train.grid import Grid
from swarmnet.train.lane import Lane

MEASURED = 1 << 14
"""Values of each part from which the distance to the others is estimated."""


@dataclass(frozen=True)
class Arithmetic:
    """What all meetings of a replica in one phase share."""

    outer: Outer
    reduce: Reduce
    codec: Codec
    grid: Grid
    generator: torch.Generator
    lane: Lane
    lock: threading.Lock = field(default_factory=threading.Lock)
    """The thread of a cancelled meeting may still be here when the next meeting comes."""

    @property
    def ready_made(self) -> bool:
        """A payload is the snapshot's own memory, for as long as that lives.

        Only memory of the CPU can be lent to a socket, and of two rows no part is in one piece.
        """
        on_cpu = self.generator.device.type == "cpu"
        return self.codec.as_is and on_cpu and self.grid.width == 1

    def encode(self, values: Tensor) -> memoryview:
        """A part's payload; ``values`` is (width, n)."""
        flat = values.reshape(-1)
        return memoryview(self.codec.encode(flat, self.generator)).cast("B")

    def working(self) -> AbstractContextManager[object]:
        """Hold the lock, and on CUDA the exchange's own stream."""
        return self.lane.hold(self.lock)


class Frozen:
    """One snapshot: theta (P,), what is sent of it (width, P), and its encoded parts."""

    def __init__(self, theta: Tensor, arithmetic: Arithmetic) -> None:
        grid, outer = arithmetic.grid, arithmetic.outer
        self.theta = torch.empty_like(theta)
        self.sent = self.theta.view(1, -1)
        if not outer.sends_theta:
            self.sent = theta.new_empty(grid.width, grid.numel)
        self._arithmetic = arithmetic
        self._payload: list[memoryview | None] = [None] * grid.parts

    @property
    def nbytes(self) -> int:
        values = self.theta.numel()
        if not self._arithmetic.outer.sends_theta:
            values += self.sent.numel()
        return values * self.theta.element_size()

    def capture(self, theta: Tensor) -> None:
        self.theta.copy_(theta)
        if not self._arithmetic.outer.sends_theta:
            self._arithmetic.outer.contribution(self.theta, self.sent)
        self._arithmetic.lane.mark()
        if not self._arithmetic.ready_made:
            self._payload = [None] * len(self._payload)

    def encode(self, part: int, working: AbstractContextManager[object]) -> memoryview:
        """The part's payload, made under ``working`` unless it is there already."""
        payload = self._payload  # a capture in between begins another list
        view = payload[part]
        if view is None:
            with working:
                span = self._arithmetic.grid.span(part)
                view = payload[part] or self._arithmetic.encode(self.sent[:, span])
                payload[part] = view
        return view


class ReplicaBlend:
    """Implements ``exchange.subject.Blend``; forms ``vector`` (P,)."""

    def __init__(
        self,
        arithmetic: Arithmetic,
        frozen: Frozen,
        vector: Tensor,
        me: str,
        works: Mapping[str, int],
    ) -> None:
        self._a = arithmetic
        self._frozen = frozen
        self._vector = vector
        self._me = me
        members = list(works)
        rows = arithmetic.outer.shares(list(works.values()))
        self._shares = [dict(zip(members, row, strict=True)) for row in rows]
        self._squares, self._compared = 0.0, 0
        self._missing = set(range(arithmetic.grid.parts))

    def take(self, part: int, payloads: Mapping[str, memoryview]) -> None:
        with self._a.working():
            own, others = self._own(part), self._decode(part, payloads)
            pull = self._room(part, own)
            for row in range(len(own)):
                theirs = [values[row] for values in others.values()]
                weights = [self._shares[row][peer] for peer in (self._me, *others)]
                self._a.reduce.pull(own[row], theirs, weights, pull[row])
            self._settle(part, pull)
            self._measure(own[0], [values[0] for values in others.values()])

    def fuse(self, part: int, payloads: Mapping[str, memoryview]) -> memoryview:
        with self._a.working():
            others, own = self._decode(part, payloads), self._own(part)
            values = {**others, self._me: own}
            peers = sorted(values)
            rows = [
                self._a.reduce.combine(
                    [values[peer][row] for peer in peers], [shares[peer] for peer in peers]
                )
                for row, shares in enumerate(self._shares)
            ]
            self._measure(own[0], [theirs[0] for theirs in others.values()])
            return self._a.encode(torch.stack(rows))

    def adopt(self, part: int, mean: memoryview) -> None:
        with self._a.working():
            [fused], own = self._decode(part, {"": mean}).values(), self._own(part)
            self._settle(part, torch.sub(fused, own, out=self._room(part, own)))

    def finish(self) -> Correction:
        for part in self._missing:
            self._vector[self._a.grid.span(part)] = 0.0
        return Correction(self._vector, (self._squares / max(1, self._compared)) ** 0.5)

    def _own(self, part: int) -> Tensor:
        """My contribution as everybody decodes it: (width, n)."""
        if self._a.codec.as_is:
            return self._frozen.sent[:, self._a.grid.span(part)]
        return self._decode(part, {self._me: self._frozen.encode(part, nullcontext())})[self._me]

    def _decode(self, part: int, payloads: Mapping[str, memoryview]) -> dict[str, Tensor]:
        """(width, n) of each payload, in the order of ids; read only."""
        grid = self._a.grid
        decoded = {}
        for peer in sorted(payloads):
            out = self._vector.new_empty(grid.values(part))
            values = self._a.codec.decode(payloads[peer], out)
            decoded[peer] = values.view(grid.width, -1)
        return decoded

    def _room(self, part: int, own: Tensor) -> Tensor:
        """Where the pull of a part is formed: of one row in its final place."""
        place = self._vector[self._a.grid.span(part)].view(1, -1)
        return place if len(own) == 1 else torch.empty_like(own)

    def _settle(self, part: int, pull: Tensor) -> None:
        """``pull`` may be the place where its correction belongs."""
        place = self._vector[self._a.grid.span(part)]
        correction = self._a.outer.correction(pull)
        if correction.data_ptr() != place.data_ptr():
            place.copy_(correction)
        self._missing.discard(part)

    def _measure(self, own: Tensor, others: list[Tensor]) -> None:
        for theirs in others:
            difference = theirs[:MEASURED] - own[:MEASURED]
            self._squares += float(torch.dot(difference, difference))
            self._compared += len(difference)
