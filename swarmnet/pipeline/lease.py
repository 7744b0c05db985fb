"""The lease: one peer of a run moves between stages at a time, and no clock is compared.

Moves of a run are numbered. Who wants to make move n writes a claim (n, own id) under its own
subkey, lets others see it, reads all claims and goes if no lower hash claims n. Whoever reads a
number for the first time starts a period on its own clock and claims n + 1 only after it; so
periods are as long everywhere, wherever clocks stand. A claim that nobody followed up (its
peer died) costs one period. Nothing here reads or writes: a shell does.

Two move at once only when a claim took longer than half of ``settle_s`` to be seen. The next
view shows both on their way, so that costs a download and nothing else.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["wait", "move", "yield"]
MAX_NUMBER = 2**53
JITTER = 0.1
"""Of a period: peers whose views differ do not claim at one moment."""


@dataclass(frozen=True, slots=True)
class Claim:
    """``peer`` wants to make the run's move ``number``, counted from 1."""

    number: int
    peer: str

    @property
    def rank(self) -> bytes:
        """The lowest one wins; nobody is favoured over several moves."""
        return hashlib.sha256(f"{self.number}/{self.peer}".encode()).digest()


class Lease:
    """One peer's part in the agreement; times are seconds on its own clock.

    The caller passes claims of peers of the run only. A hostile one could claim every number;
    it would stop moves, and nothing else.
    """

    def __init__(self, me: str, period_s: float, settle_s: float, rng: random.Random) -> None:
        self.me = me
        self.settle_s = settle_s
        self._wait_s = period_s * (1 + rng.uniform(0, JITTER))
        self._number = 0
        self._since: float | None = None
        self._read_at = float("-inf")
        self._rivals: frozenset[Claim] = frozenset()
        self._mine: tuple[Claim, float] | None = None

    def read(self, claims: Iterable[Claim], now: float) -> None:
        """All claims of the run, as a read that began at ``now`` found them."""
        legal = [claim for claim in claims if 0 < claim.number <= MAX_NUMBER]
        newest = max((claim.number for claim in legal), default=0)
        if newest > self._number or self._since is None:
            self._number, self._since = max(newest, self._number), now
        self._rivals = frozenset(claim for claim in legal if claim.number == newest)
        self._read_at = now

    def claim(self, now: float) -> Claim | None:
        """What to write now, if a period is over; None: not yet, or one's own claim is open.

        Only right after a read: a claim that is already there must have been seen.
        """
        fresh = now - self._read_at <= self.settle_s / 2
        since = now if self._since is None else self._since
        if self._mine or not fresh or now - since < self._wait_s:
            return None
        claim = Claim(self._number + 1, self.me)
        self._mine = claim, now
        self._number, self._since = claim.number, now
        return claim

    def verdict(self, now: float) -> Verdict:
        """What becomes of one's own claim. Without one, or when it is never read back: yield."""
        if self._mine is None:
            return "yield"
        mine, written = self._mine
        newer = any(rival.number > mine.number for rival in self._rivals)
        lower = any(
            rival.number == mine.number and rival.rank < mine.rank for rival in self._rivals
        )
        if newer or lower or now - written >= self._wait_s:
            self._mine = None
            return "yield"
        if self._read_at < written + self.settle_s or mine not in self._rivals:
            return "wait"
        self._mine = None
        self._since = now
        return "move"
