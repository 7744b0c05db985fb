"""What a stage has behind it: how many steps, which samples, and a name for exactly these.

It belongs to the weights as the optimizer's state does: a joiner gets it with them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from swarmnet.errors import MessageError, PayloadError
from swarmnet.exchange import claims
from swarmnet.exchange.claims import Ids

KEPT_COMMITS = 1024
KEPT_SAMPLES = 1 << 14
"""What is remembered of commits; a sample that comes later than that is not known to have counted.
A trainer asks every few seconds, so it would have to be cut off for all of these steps."""
DIGITS = 32
MOST = 1 << 62


@dataclass(frozen=True)
class Past:
    """Two peers of a stage with the same ``lineage`` have taken the same steps, bit for bit."""

    step: int = 0
    lineage: str = ""
    committed: int = 0
    """Tokens in all steps together. Peers derive what must be equal among them from this, the
    learning rate above all, and never from clocks."""
    elapsed_s: float = 0.0
    """Seconds that the run had lasted at the last step, as the step's leader told all."""
    commits: tuple[tuple[int, bytes], ...] = ()
    """(step before it, packed ids) of the last commits."""

    def after(self, ids: Iterable[int], tokens: int, by: str = "", elapsed_s: float = 0.0) -> Past:
        """One more step, made of these samples; ``by`` names the one meeting that decided it.

        Another meeting over the same samples may round otherwise, or at another rate. What the
        rate follows from is in the name, so nobody can say it otherwise to who follows.
        """
        packed = b"".join(one.to_bytes(8, "big") for one in sorted(ids))
        elapsed_s = max(self.elapsed_s, elapsed_s)
        said = f"{self.lineage} {self.step} {by} {tokens} {elapsed_s!r}"
        return Past(
            self.step + 1,
            _lineage(said, packed),
            self.committed + tokens,
            elapsed_s,
            _newest((*self.commits, (self.step, packed))),
        )

    def at(self, step: int) -> Past:
        """The same weights under a later number, where nobody has newer ones."""
        return replace(self, step=step)

    def counted(self, sample: int) -> int | None:
        """Before which step it was committed; None: unknown."""
        return self._steps.get(sample)

    def spoils(self, samples: Iterable[int]) -> bool:
        """A sum with these samples in it must not count: one of them has."""
        return any(sample in self._steps for sample in samples)

    @property
    def rank(self) -> tuple[int, int, str]:
        """Of pasts that do not agree the greatest stands: more steps, then more tokens."""
        return self.step, self.committed, self.lineage

    @cached_property
    def _steps(self) -> dict[int, int]:
        return {
            int.from_bytes(packed[at : at + 8], "big"): step
            for step, packed in self.commits
            for at in range(0, len(packed), 8)
        }

    # ---- for joiners --------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """Plain values for msgpack."""
        return {
            "step": self.step,
            "lineage": self.lineage,
            "committed": self.committed,
            "elapsed_s": self.elapsed_s,
            "commits": [list(commit) for commit in self.commits],
        }

    @classmethod
    def unpack(cls, said: Any) -> Self:
        """Raises PayloadError when a donor says something else than a past."""
        try:
            past = cls(
                said["step"],
                said["lineage"],
                said["committed"],
                said["elapsed_s"],
                tuple((step, packed) for step, packed in said["commits"]),
            )
            numbers = (past.step, past.committed, *(step for step, _ in past.commits))
            sound = all(type(one) is int and 0 <= one < MOST for one in numbers)
            sound &= type(past.elapsed_s) is float and 0 <= past.elapsed_s < 1e9
            sound &= re.fullmatch(f"([0-9a-f]{{{DIGITS}}})?", past.lineage) is not None
            for _, packed in past.commits:
                claims.unpack(memoryview(packed).tobytes())
        except (KeyError, TypeError, ValueError, MessageError) as error:
            raise PayloadError("a stage's past that cannot be read") from error
        if not sound or _newest(past.commits) != past.commits:
            raise PayloadError("a stage's past that cannot be")
        return past


def _lineage(said: str, packed: bytes) -> str:
    return hashlib.sha256(f"{said} ".encode() + packed).hexdigest()[:DIGITS]


def _newest(commits: tuple[tuple[int, bytes], ...]) -> tuple[tuple[int, bytes], ...]:
    """As many of the last as are remembered; the very last one always."""
    kept = commits[-KEPT_COMMITS:]
    while len(kept) > 1 and sum(len(packed) for _, packed in kept) > 8 * KEPT_SAMPLES:
        kept = kept[1:]
    return kept


@dataclass(frozen=True)
class Commit:
    """One step of a stage: what is in it, and the past that it leads to."""

    ids: Ids
    works: dict[str, int]
    """Tokens of each member that stepped; 0: its own contribution is not in the mean."""
    past: Past
    """After this step."""
    shares: dict[str, int]
    """Samples of each member that are in the mean: a sample is in one member's share alone."""
    by: str = ""
    """The one meeting that decided it."""

    @classmethod
    def of(
        cls,
        before: Past,
        works: dict[str, int],
        claimed: dict[str, Ids],
        by: str = "",
        elapsed_s: float = 0.0,
    ) -> Self:
        """``by``: the decision's leader and number. ``elapsed_s``: how long the run had lasted, in
        the words of who called the meeting."""
        ids = tuple(sorted(sample for ids in claimed.values() for sample in ids))
        past = before.after(ids, sum(works.values()), by, elapsed_s)
        return cls(ids, works, past, {peer: len(held) for peer, held in claimed.items()}, by)

    @property
    def tokens(self) -> int:
        return sum(self.works.values())
