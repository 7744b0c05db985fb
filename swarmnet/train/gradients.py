"""A stage's frozen gradient sums as the cargo of a meeting: per-token means, weighed by tokens.

With g_i = G_i / n_i and the weights n_i / sum n the mean of a meeting is sum G_i / sum n_i,
however the samples were spread over the peers. All members form it from decoded payloads, their own
too, in the order of ids; in a butterfly all adopt what the owner of a part encoded, the owner too.
So all hold the same bits whatever the codec lost. A correction of the own part would not do: it
rounds in another way at each.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

import torch
from torch import Tensor

from swarmnet.errors import PayloadError
from swarmnet.exchange.subject import Correction
from swarmnet.train.flat import layout_hash
from swarmnet.train.grid import Grid
from swarmnet.train.replica import Replica
from swarmnet.train.sums import Sums


class GradientCargo:
    """Implements ``exchange.subject.Cargo`` for ``Sums``."""

    whole = True

    def __init__(self, replica: Replica, stage: int, described: str, seed: int) -> None:
        """``described``: what else all peers of the stage have in common; ``seed`` is one's own."""
        theta, self._rules = replica.theta, replica.rules
        self.grid = Grid(self._rules.codec, 1, theta.numel())
        self.parts, self.nbytes = self.grid.parts, self.grid.nbytes
        said = f"gradients {stage} {layout_hash(replica.module)} {described}"
        self.layout = hashlib.sha256(said.encode()).hexdigest()[:32]
        self.quick = theta.device.type == "cpu"
        self._generator = torch.Generator(device=theta.device).manual_seed(seed)
        self._lock = threading.Lock()
        self._of: Sums | None = None
        self._payload: dict[int, memoryview] = {}

    @property
    def ready_made(self) -> bool:
        """Dividing a part whenever it is asked for costs less than keeping all quotients."""
        return self.quick and self._rules.codec.as_is

    def part_nbytes(self, part: int) -> int:
        return self.grid.part_nbytes(part)

    def encode(self, snapshot: Sums, part: int) -> memoryview:
        if self.ready_made:
            return self.pack(self.own(snapshot, part))
        with self._lock:
            if self._of is not snapshot:
                self._of, self._payload = snapshot, {}
            if part not in self._payload:
                self._payload[part] = self.pack(self.own(snapshot, part))
            return self._payload[part]

    def blend(self, snapshot: Sums, me: str, works: Mapping[str, int]) -> GradientBlend:
        return GradientBlend(self, snapshot, me, works)

    # ---- for a blend --------------------------------------------------------------------------

    def own(self, sums: Sums, part: int) -> Tensor:
        """(n,): the own gradient per token."""
        return sums.vector[self.grid.span(part)] / max(1, sums.tokens)

    def combine(self, means: Mapping[str, Tensor], works: Mapping[str, int]) -> Tensor:
        """(n,): the mean over all tokens, the same at whoever has the same means."""
        peers = sorted(means)
        return self._rules.reduce.combine([means[p] for p in peers], [works[p] for p in peers])

    def pack(self, values: Tensor) -> memoryview:
        return memoryview(self._rules.codec.encode(values, self._generator)).cast("B")

    def unpack(self, part: int, payload: memoryview, like: Tensor) -> Tensor:
        """(n,), read only. Raises PayloadError."""
        return self._rules.codec.decode(payload, like.new_empty(self.grid.values(part)))


class GradientBlend:
    """Implements ``exchange.subject.Blend``; its result is the mean itself, (P,)."""

    def __init__(self, cargo: GradientCargo, sums: Sums, me: str, works: Mapping[str, int]) -> None:
        self._cargo = cargo
        self._sums = sums
        self._me = me
        self._works = works
        self._mean: Tensor = torch.empty_like(sums.vector)
        self._missing = set(range(cargo.parts))

    def take(self, part: int, payloads: Mapping[str, memoryview]) -> None:
        self._settle(part, self._combined(part, payloads))

    def fuse(self, part: int, payloads: Mapping[str, memoryview]) -> memoryview:
        return self._cargo.pack(self._combined(part, payloads))

    def adopt(self, part: int, mean: memoryview) -> None:
        self._settle(part, self._cargo.unpack(part, mean, self._mean))

    def finish(self) -> Correction:
        """Raises RuntimeError where a part is missing: nobody may step with a piece."""
        if self._missing:
            raise RuntimeError(f"{len(self._missing)} parts of the mean were never formed")
        return Correction(self._mean, 0.0)

    def _combined(self, part: int, payloads: Mapping[str, memoryview]) -> Tensor:
        cargo, own = self._cargo, self._cargo.own(self._sums, part)
        if not payloads:  # a peer alone loses nothing to a codec, and nobody checks it for it
            if not bool(own.isfinite().all()):
                raise PayloadError("the own gradient is not finite")
            return own
        means = {peer: cargo.unpack(part, p, self._mean) for peer, p in payloads.items()}
        if not cargo.ready_made:
            own = cargo.unpack(part, cargo.encode(self._sums, part), self._mean)
        means[self._me] = own
        return cargo.combine(means, self._works)

    def _settle(self, part: int, mean: Tensor) -> None:
        self._mean[self._cargo.grid.span(part)] = mean
        self._missing.discard(part)
