"""What simulated peers average: plain vectors, so that laws can be checked to the last digit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swarmnet.errors import PayloadError
from swarmnet.exchange.desk import Correction

Floats = NDArray[np.float64]


class VectorSubject:
    """Pair averaging of a float64 vector without loss (``outer/average`` on plain numbers).

    With ``nbytes`` above the vector's own size the payload is followed by zeros: a model of that
    size on a slow link, without its memory.
    """

    def __init__(self, vector: Floats, nbytes: int = 0) -> None:
        self.live = vector.copy()
        self.nbytes = max(nbytes, vector.nbytes)
        self.layout = f"{vector.size:016x}"
        self.steps_alone = False
        self._padded = bytearray(self.nbytes) if self.nbytes > vector.nbytes else None

    def capture(self) -> Floats:
        return self.live.copy()

    def encode(self, snapshot: Floats) -> memoryview:
        if self._padded is None:
            return memoryview(snapshot.tobytes())
        self._padded[: snapshot.nbytes] = snapshot.tobytes()
        return memoryview(self._padded)

    def correct(self, me: str, own: memoryview, peer: str, theirs: memoryview) -> Correction:
        mine, other = (np.frombuffer(p[: self.live.nbytes]) for p in (own, theirs))
        if not np.isfinite(other).all():
            raise PayloadError("payload is not finite")
        difference = other - mine
        return Correction(difference / 2, float(np.sqrt(np.mean(difference**2))))

    def apply_met(self, snapshot: Floats, correction: Floats) -> None:
        self.live += correction

    def apply_solo(self, snapshot: Floats) -> None:
        """Averaging has no outer step of its own."""

    def apply_late(self, correction: Floats) -> None:
        self.live += correction

    def enter_consensus(self) -> None:
        """Training meets by pure averages already."""


def disagreement(vectors: Sequence[Floats]) -> float:
    """Root mean square distance of the replicas from their mean, per coordinate."""
    stack = np.stack(vectors)
    return float(np.sqrt(np.mean((stack - stack.mean(axis=0)) ** 2)))
