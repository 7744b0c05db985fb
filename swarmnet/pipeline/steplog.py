"""The steps of a stage since somebody began to copy its state, for who is slower than a step.

Its copy is old when it is whole, and the next one would be too. But what the stage did since is
known: a mean gradient for each step, a third of what a state with AdamW's moments is, and as much
as every member moves for a step anyway. Whoever takes the same steps from the same state holds the
same bits; who is too slow for that is too slow to be a member.

Nothing is kept unless somebody copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarmnet.errors import MessageError, PayloadError
from swarmnet.exchange import claims
from swarmnet.exchange.claims import Ids
from swarmnet.exchange.subject import Vector
from swarmnet.pipeline.past import Commit, Past
from swarmnet.wire.messages import Count, Seconds

SHARE = 4
"""A quarter of the memory that is free may be taken by steps that are kept, and one at least."""


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    step: Count
    lineage: str = Field(max_length=64)
    ids: bytes
    tokens: Count
    by: str = Field(max_length=256)
    elapsed_s: Seconds


@dataclass(frozen=True, eq=False)
class Logged:
    """One step, as whoever has the state before it takes it: what is in it, and its mean (P,)."""

    step: int
    """After it."""
    lineage: str
    ids: Ids
    tokens: int
    by: str
    elapsed_s: float
    mean: Vector

    @classmethod
    def of(cls, commit: Commit, mean: Vector) -> Self:
        past = commit.past
        return cls(
            past.step, past.lineage, commit.ids, commit.tokens, commit.by, past.elapsed_s, mean
        )

    def after(self, past: Past) -> Past:
        """What is behind the weights then. Raises PayloadError when it does not continue ``past``.

        The name covers all but the mean, which is believed of a donor as a copied state is.
        """
        following = past.after(self.ids, self.tokens, self.by, self.elapsed_s)
        if (following.step, following.lineage) != (self.step, self.lineage):
            raise PayloadError("a step that does not follow the own ones")
        return following

    def pack(self) -> dict[str, Any]:
        """Plain values for msgpack; the mean travels by itself."""
        packed = b"".join(one.to_bytes(8, "big") for one in self.ids)
        said = {name: getattr(self, name) for name in ("step", "lineage", "tokens", "by")}
        return said | {"ids": packed, "elapsed_s": self.elapsed_s}

    @classmethod
    def unpack(cls, said: Mapping[str, Any], mean: Vector) -> Self:
        """Raises PayloadError when a donor says what no step can be."""
        try:
            read = _Said.model_validate(dict(said))
            ids = claims.unpack(read.ids)
        except (ValidationError, MessageError) as error:
            raise PayloadError("a step that cannot be read") from error
        return cls(read.step, read.lineage, ids, read.tokens, read.by, read.elapsed_s, mean)


class StepLog:
    """Of one stage peer. In its compute thread and in the network's loop."""

    def __init__(self, copy: Callable[[Vector], Vector], free: Callable[[], int]) -> None:
        """``copy``: of a mean that is about to be spent, in host memory. ``free``: bytes there."""
        self._copy = copy
        self._free = free
        self._until = -math.inf
        self._kept: dict[int, Logged] = {}

    def keep(self, until: float) -> None:
        """From now on, until then; with the copy of a state that is taken in the same moment."""
        self._until = max(self._until, until)

    def note(self, commit: Commit, mean: Vector) -> None:
        """The stage is about to take this step."""
        if self._until == -math.inf:
            return
        kept = self._kept  # the loop may put another one in its place meanwhile
        logged = kept[commit.past.step] = Logged.of(commit, self._copy(mean))
        each = logged.mean.nbytes
        most = (self._free() // each + len(kept)) // SHARE
        for step in sorted(kept)[: -max(1, most)]:
            kept.pop(step, None)

    def get(self, step: int) -> Logged | None:
        """The step that led to ``step``."""
        return self._kept.get(step)

    def tidy(self, now: float) -> None:
        """Give the memory back when nobody needs it any more."""
        if now >= self._until:
            self.clear()

    def clear(self) -> None:
        """Another past: what was kept leads nowhere."""
        self._until, self._kept = -math.inf, {}
