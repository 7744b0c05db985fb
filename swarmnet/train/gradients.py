"""A stage's frozen gradient sums as the cargo of a meeting: per-token means, weighed by tokens.

With g_i = G_i / n_i and the weights n_i / sum n the mean of a meeting is sum G_i / sum n_i,
however the samples were spread over the peers. All members compute it from decoded payloads, their
own too, in the order of ids, so that all hold the same bits whatever the codec lost.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

import torch
from torch import Tensor

from swarmnet.codec import Codec
from swarmnet.exchange.subject import Correction
from swarmnet.train.flat import layout_hash
from swarmnet.train.grid import Grid
from swarmnet.train.replica import Replica
from swarmnet.train.sums import Sums


class GradientCargo:
    """Implements ``exchange.subject.Cargo`` for ``Sums``."""

    whole = True
    ready_made = False

    def __init__(self, replica: Replica, stage: int, described: str, seed: int) -> None:
        """``described``: what else all peers of the stage have in common; ``seed`` is one's own."""
        codec: Codec = replica.rules.codec
        self.codec = codec
        self.grid = Grid(codec, 1, replica.theta.numel())
        self.parts, self.nbytes = self.grid.parts, self.grid.nbytes
        said = f"gradients {stage} {layout_hash(replica.module)} {described}"
        self.layout = hashlib.sha256(said.encode()).hexdigest()[:32]
        self.quick = replica.theta.device.type == "cpu"
        self._theta = replica.theta
        self._generator = torch.Generator(device=replica.theta.device).manual_seed(seed)
        self._lock = threading.Lock()
        self._of: Sums | None = None
        self._payload: dict[int, memoryview] = {}

    def part_nbytes(self, part: int) -> int:
        return self.grid.part_nbytes(part)

    def encode(self, snapshot: Sums, part: int) -> memoryview:
        with self._lock:
            if self._of is not snapshot:
                self._of, self._payload = snapshot, {}
            if part not in self._payload:
                sums = snapshot.vector[self.grid.span(part)]
                self._payload[part] = self.pack(sums / max(1, snapshot.tokens))
            return self._payload[part]

    def blend(self, snapshot: Sums, me: str, works: Mapping[str, int]) -> GradientBlend:
        return GradientBlend(self, snapshot, me, works)

    def pack(self, values: Tensor) -> memoryview:
        return memoryview(self.codec.encode(values, self._generator)).cast("B")

    def unpack(self, part: int, payload: memoryview) -> Tensor:
        """(n,), read only. Raises PayloadError."""
        return self.codec.decode(payload, self._theta.new_empty(self.grid.values(part)))

    def room(self) -> Tensor:
        return torch.empty_like(self._theta)


class GradientBlend:
    """Implements ``exchange.subject.Blend``; its result is the mean itself, (P,)."""

    def __init__(self, cargo: GradientCargo, sums: Sums, me: str, works: Mapping[str, int]) -> None:
        self._cargo = cargo
        self._sums = sums
        self._me = me
        total = max(1, sum(works.values()))
        self._weights = {peer: works[peer] / total for peer in sorted(works)}
        self._mean = cargo.room()

    def take(self, part: int, payloads: Mapping[str, memoryview]) -> None:
        self._mean[self._cargo.grid.span(part)] = self._fused(part, payloads)

    def fuse(self, part: int, payloads: Mapping[str, memoryview]) -> memoryview:
        return self._cargo.pack(self._fused(part, payloads))

    def adopt(self, part: int, mean: memoryview) -> None:
        self._mean[self._cargo.grid.span(part)] = self._cargo.unpack(part, mean)

    def finish(self) -> Correction:
        return Correction(self._mean, 0.0)

    def _fused(self, part: int, payloads: Mapping[str, memoryview]) -> Tensor:
        own = self._cargo.encode(self._sums, part)
        fused = torch.zeros_like(self._mean[self._cargo.grid.span(part)])
        for peer, weight in self._weights.items():
            payload = own if peer == self._me else payloads[peer]
            fused += weight * self._cargo.unpack(part, payload)
        return fused
