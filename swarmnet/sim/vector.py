"""What simulated peers average: plain vectors, so that laws can be checked to the last digit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from swarmnet.errors import PayloadError
from swarmnet.exchange.subject import Correction

Floats = NDArray[np.float64]
PART_VALUES = 1 << 16
_VALUE_BYTES = 8


class VectorSubject:
    """Pair averaging of a float64 vector without loss (``outer/average`` on plain numbers).

    With ``nbytes`` above the vector's own size the payload is followed by zeros: a model of that
    size on a slow link, without its memory.
    """

    def __init__(self, vector: Floats, nbytes: int = 0) -> None:
        self.live = vector.copy()
        self.met = vector.copy()
        """Where the last meeting left the vector, without the steps that were taken meanwhile."""
        self.legacy = VectorLegacy(self)
        self.nbytes = max(nbytes, vector.nbytes)
        self.parts = -(-self.nbytes // (_VALUE_BYTES * PART_VALUES))
        self.layout = f"{vector.size:016x}"
        self.ready_made = self.quick = True
        self.steps_alone = self.whole = False
        self._zeros = bytes(min(self.nbytes, _VALUE_BYTES * PART_VALUES))

    def part_nbytes(self, part: int) -> int:
        start = part * _VALUE_BYTES * PART_VALUES
        return min(_VALUE_BYTES * PART_VALUES, self.nbytes - start)

    def capture(self) -> Floats:
        return self.live.copy()

    def encode(self, snapshot: Floats, part: int) -> memoryview:
        nbytes, raw = self.part_nbytes(part), snapshot[_span(part)].tobytes()
        if len(raw) == nbytes:
            return memoryview(raw)
        if not raw:
            return memoryview(self._zeros)[:nbytes]
        return memoryview(raw + self._zeros[: nbytes - len(raw)])

    def effort(self, steps: int, step_s: float) -> int:
        return steps

    def blend(self, snapshot: Floats, me: str, works: Mapping[str, int]) -> VectorBlend:
        return VectorBlend(snapshot, me)

    def apply_met(self, snapshot: Floats, correction: Floats) -> None:
        self.met = snapshot + correction
        self.live += correction

    def apply_solo(self, snapshot: Floats) -> None:
        """Averaging has no outer step of its own."""
        self.met = snapshot.copy()

    def apply_late(self, correction: Floats) -> None:
        self.met += correction
        self.live += correction

    def enter_consensus(self) -> None:
        """Training meets by pure averages already."""


class VectorLegacy:
    """What a leaver's vector has gained since its last meeting; it travels without loss."""

    ready_made = quick = True

    def __init__(self, subject: VectorSubject) -> None:
        self._subject = subject
        self.layout = f"{subject.live.size:015x}f"
        self.nbytes = subject.live.nbytes
        self.parts = -(-subject.live.size // PART_VALUES)

    def part_nbytes(self, part: int) -> int:
        return self._subject.live[_span(part)].nbytes

    def capture(self) -> Floats | None:
        gained = self._subject.live - self._subject.met
        return gained if gained.any() else None

    def encode(self, snapshot: Floats, part: int) -> memoryview:
        return memoryview(snapshot[_span(part)].tobytes())

    def intake(self, leaver: int, heir: int) -> VectorIntake:
        return VectorIntake(np.zeros_like(self._subject.live))

    def inherit(self, displacement: Floats) -> None:
        self._subject.live += displacement

    def part_with(self, displacement: Floats) -> None:
        self._subject.live -= displacement


class VectorIntake:
    """Decodes a ``VectorLegacy``."""

    def __init__(self, vector: Floats) -> None:
        self._vector = vector

    def take(self, part: int, payloads: Mapping[str, memoryview]) -> None:
        [payload] = payloads.values()
        self._vector[_span(part)] = _finite(payload)

    def finish(self) -> Correction:
        return Correction(self._vector, float(np.sqrt(np.mean(self._vector**2))))


class VectorBlend:
    """The plain mean of a group's vectors; parts of padding are empty spans of it."""

    def __init__(self, own: Floats, me: str) -> None:
        self._own = own
        self._me = me
        self._correction = np.zeros_like(own)
        self._squares = 0.0
        self._compared = 1

    def take(self, part: int, payloads: Mapping[str, memoryview]) -> None:
        span = _span(part)
        self._correction[span] = self._mean(part, payloads) - self._own[span]

    def fuse(self, part: int, payloads: Mapping[str, memoryview]) -> memoryview:
        return memoryview(self._mean(part, payloads).tobytes())

    def adopt(self, part: int, mean: memoryview) -> None:
        span = _span(part)
        self._correction[span] = self._values(mean, part) - self._own[span]

    def finish(self) -> Correction:
        return Correction(self._correction, (self._squares / self._compared) ** 0.5)

    def _mean(self, part: int, payloads: Mapping[str, memoryview]) -> Floats:
        own = self._own[_span(part)]
        vectors = {peer: self._values(payload, part) for peer, payload in payloads.items()}
        self._squares += float(sum(np.sum((vector - own) ** 2) for vector in vectors.values()))
        self._compared = self._own.size * len(vectors)
        vectors[self._me] = own
        mean: Floats = np.mean([vectors[peer] for peer in sorted(vectors)], axis=0)
        return mean

    def _values(self, payload: memoryview, part: int) -> Floats:
        return _finite(payload[: self._own[_span(part)].nbytes])


def _finite(payload: memoryview) -> Floats:
    vector = np.frombuffer(payload)
    if not np.isfinite(vector).all():
        raise PayloadError("payload is not finite")
    return vector


def _span(part: int) -> slice:
    return slice(part * PART_VALUES, (part + 1) * PART_VALUES)


def disagreement(vectors: Sequence[Floats]) -> float:
    """Root mean square distance of the replicas from their mean, per coordinate."""
    stack = np.stack(vectors)
    return float(np.sqrt(np.mean((stack - stack.mean(axis=0)) ** 2)))
