"""What a replica that leaves hands to another one, as the exchange sees it (``subject.Legacy``).

With theta the leaver's weights, ``d`` its work that no outer step has moved yet (theta - phi) and
``d'`` what the codec makes of it, the heir's theta moves by ``d'`` and the leaver's by ``-d'``. So
nothing is lost and nothing is there twice, also when the leaver comes back from its checkpoint.
The heir's Delta has grown by ``d'``: its next outer step moves the swarm's sum of slow weights by
``beta d'`` more, which is what the leaver's own step would have done, momentum included. Should
the heir leave before that step, it hands ``d'`` on with its own work.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

import torch
from torch import Tensor

from swarmnet.codec import Codec
from swarmnet.exchange.subject import Correction
from swarmnet.outer import Outer
from swarmnet.train.grid import Grid
from swarmnet.train.lane import Lane


class ReplicaLegacy:
    """Implements ``exchange.subject.Legacy`` for weights ``theta``, (P,). Holds no memory of P."""

    def __init__(self, theta: Tensor, outer: Outer, codec: Codec, lane: Lane, layout: str) -> None:
        self._theta = theta
        self._outer = outer
        self._codec = codec
        self._lane = lane
        self._grid = Grid(codec, 1, theta.numel())
        self.layout = hashlib.sha256(f"legacy {layout}".encode()).hexdigest()[:32]
        self.parts, self.nbytes = self._grid.parts, self._grid.nbytes
        self.part_nbytes = self._grid.part_nbytes
        self.quick = theta.device.type == "cpu"
        self.ready_made = self.quick and codec.as_is
        self._generator = torch.Generator(device=theta.device).manual_seed(0)
        self._lock = threading.Lock()
        self._payload: dict[int, memoryview] = {}

    def capture(self) -> Tensor | None:
        vector = torch.empty_like(self._theta)
        self._outer.unshared(self._theta, vector)
        self._lane.mark()
        self._payload = {}
        return vector if bool(vector.any()) else None

    def encode(self, snapshot: Tensor, part: int) -> memoryview:
        """Rounding may be by chance: what was made once is sent and decoded ever after."""
        if part not in self._payload:
            with self._lane.hold(self._lock):
                encoded = self._codec.encode(snapshot[self._grid.span(part)], self._generator)
                self._payload[part] = memoryview(encoded).cast("B")
        return self._payload[part]

    def intake(self, leaver: int, heir: int) -> LegacyIntake:
        return LegacyIntake(self, self._outer.inheritance(leaver, heir))

    @torch.no_grad()
    def inherit(self, displacement: Tensor) -> None:
        self._theta += displacement

    @torch.no_grad()
    def part_with(self, displacement: Tensor) -> None:
        self._theta -= displacement

    def decode(self, part: int, payload: memoryview, into: Tensor) -> Tensor:
        """(n,), placed into ``into`` (P,). Raises PayloadError."""
        place = into[self._grid.span(part)]
        with self._lane.hold(self._lock):
            return place.copy_(self._codec.decode(payload, torch.empty_like(place)))

    def room(self) -> Tensor:
        return torch.zeros_like(self._theta)


class LegacyIntake:
    """Implements ``exchange.subject.Intake``: the decoded displacement, times ``share``."""

    def __init__(self, legacy: ReplicaLegacy, share: float) -> None:
        self._legacy = legacy
        self._share = share
        self._vector = legacy.room()
        self._squares = 0.0

    def take(self, part: int, payloads: Mapping[str, memoryview]) -> None:
        [payload] = payloads.values()
        place = self._legacy.decode(part, payload, self._vector).mul_(self._share)
        self._squares += float(torch.dot(place, place))

    def finish(self) -> Correction:
        return Correction(self._vector, (self._squares / self._vector.numel()) ** 0.5)
