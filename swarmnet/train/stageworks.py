"""A stage's compute core behind the pipeline's door: bytes are checked, decoded, computed, encoded.

Implements ``pipeline.works.Works``. What a stranger sent is refused alone: the others of its batch
are computed without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from swarmnet.boundary import Boundary
from swarmnet.errors import PayloadError, SampleRefused, StaleVersion
from swarmnet.model import StageModule
from swarmnet.pipeline.works import NOTHING, Answer, Entry, Exit, Gradient, Handle
from swarmnet.train.passes import Arrival, Pass
from swarmnet.train.stage import StageCore

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class StageWorks:
    """Computes one stage for others. One thread at a time, except ``drop``."""

    def __init__(self, core: StageCore, stage: StageModule, boundary: Boundary, seed: int) -> None:
        """``seed`` is this peer's own: a codec's noise."""
        self.core = core
        self.recomputed = 0
        """Backwards whose forward's weights were gone."""
        self._boundary = boundary
        self._features = boundary.features(stage.width)
        self._vocab, self._first, self._last = stage.vocab, stage.first, stage.last
        self._device, self._dtype = core.master.theta.device, core.master.theta.dtype
        self._generator = torch.Generator(device=self._device).manual_seed(seed)

    @property
    def version(self) -> int:
        return self.core.version

    def forward(self, entries: Sequence[Entry]) -> list[Exit | PayloadError]:
        return _one_by_one(entries, self._forward)

    def backward(self, gradients: Sequence[Gradient]) -> list[Answer | PayloadError]:
        found: dict[int, Answer | PayloadError] = {}
        for counts in (True, False):
            alike = [g for g in gradients if g.counts is counts]
            answers = _one_by_one(alike, self._backward)
            found |= {g.sample: answer for g, answer in zip(alike, answers, strict=True)}
        return [found[gradient.sample] for gradient in gradients]

    def weigh(self) -> Sequence[int]:
        return self.core.weigh()

    def drop(self, handle: Handle) -> None:
        handle.graph = None

    # ---- inside -----------------------------------------------------------------------------

    def _forward(self, entries: Sequence[Entry]) -> list[Exit]:
        passes = self.core.forward([self._arrival(entry) for entry in entries])
        return [Exit(p, p.version, self._encode(p.output), p.loss, p.tokens) for p in passes]

    def _backward(self, gradients: Sequence[Gradient]) -> list[Answer]:
        if not gradients:
            return []
        counts = gradients[0].counts
        values = [self._gradient(gradient) for gradient in gradients]
        passes: list[Pass] = [gradient.handle for gradient in gradients]
        again = [p.stale for p in passes]
        if any(again):
            self.recomputed += sum(again)
            passes = [
                self.core.forward([p.arrival])[0] if stale else p
                for p, stale in zip(passes, again, strict=True)
            ]
        results = self.core.backward(passes, values, count=counts)
        return [
            Answer(self._encode(result), stale)
            for result, stale in zip(results, again, strict=True)
        ]

    def _arrival(self, entry: Entry) -> Arrival:
        ids = np.frombuffer(entry.ids, np.int32).reshape(entry.rows, entry.length + 1)
        if ids.min() < 0 or ids.max() >= self._vocab:
            raise PayloadError("token ids beyond the vocabulary")
        tokens = torch.from_numpy(ids.astype(np.int64)).to(self._device)
        if self._first:
            return Arrival(entry.sample, tokens)
        return Arrival(entry.sample, tokens, self._decode(entry.received, entry))

    def _gradient(self, gradient: Gradient) -> Tensor | None:
        return None if self._last else self._decode(gradient.payload, gradient.entry)

    def _decode(self, payload: memoryview, entry: Entry) -> Tensor:
        shape = (entry.rows, entry.length, self._features)
        return self._boundary.decode(
            payload, torch.empty(shape, dtype=self._dtype, device=self._device)
        )

    def _encode(self, values: Tensor | None) -> memoryview:
        if values is None:
            return NOTHING
        return memoryview(self._boundary.encode(values, self._generator)).cast("B")


def _one_by_one(
    items: Sequence[ItemT], work: Callable[[Sequence[ItemT]], list[ResultT]]
) -> list[ResultT | PayloadError]:
    """All together, or each alone once one of them is refused."""
    try:
        return list(work(items))
    except (PayloadError, SampleRefused, StaleVersion) as error:
        if len(items) == 1:
            return [PayloadError(str(error))]
        return [result for item in items for result in _one_by_one([item], work)]
