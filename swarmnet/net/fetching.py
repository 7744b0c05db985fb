"""Which chunk of a state to ask of which donor: pure decisions, on the caller's clock in seconds.

Donors pull their own weight: each has a few chunks asked of it, and gets the next one when one is
there, so a fast one brings more. What a lost donor had still to bring goes to the others; what it
brought stays. When nothing is left to ask for, chunks that are late are asked of a second donor.

Two kinds of joining. *Alike*: only chunks of one version count, that of the ``target``; a donor
brings those of its chunks that hash as the target's do. *Mixed*: replicas differ anyway, and every
chunk may be any donor's (``train/parcel.py`` says why that is right).
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

AHEAD = 6
"""Chunks asked of one donor at once: enough that a stream is never idle between two."""
FIRST_S, FLOOR_S, CEILING_S = 10.0, 3.0, 20.0
ENOUGH = 4
K_MAD = 6.0
HISTORY = 32
REST_S, MAX_REST_S = 1.0, 15.0
FAR_BEHIND = 2
"""A donor whose version is so many times smaller than the newest has not been part of the run."""


@dataclass
class _Donor:
    hashes: Sequence[bytes]
    version: int
    asked: dict[int, float] = field(default_factory=dict)
    """Chunk -> when it was asked for."""
    ahead: deque[int] = field(default_factory=deque)
    """Chunks that it may be asked for next; some may be done or asked of others meanwhile."""
    moved_at: float = 0.0
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def holds(self, chunk: int, target: Sequence[bytes] | None) -> bool:
        """Whether its own chunk is the one that is looked for."""
        return target is None or self.hashes[chunk] == target[chunk]


class Fetching:
    """One joiner's way to a whole state out of ``len(held)`` chunks.

    ``held``: the hash of what is there already, by chunk: an older state, or part of this one.
    ``had``: chunks that were taken before, and of whom; where states are mixed they count.
    """

    def __init__(
        self,
        held: Sequence[bytes],
        now: float,
        *,
        alike: bool,
        had: Mapping[int, str] | None = None,
    ) -> None:
        self._held = list(held)
        self._alike = alike
        self._by = dict(had or {})
        """Chunk -> who brought what is there."""
        self._open = set(range(len(held))) - (set() if alike else self._by.keys())
        self._landing: dict[int, str] = {}
        self._donors: dict[str, _Donor] = {}
        self._versions: dict[str, int] = {}
        self._rests: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self.banned: dict[str, str] = {}
        """Donor -> why it is not asked again."""
        self._target: Sequence[bytes] | None = None
        self._lead: tuple[int, str] | None = None
        self.progress_at = now
        self.brought: Counter[str] = Counter()
        """Chunks by donor."""

    # ---- what is known --------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Every chunk is here; with no manifest there is nothing to compare with."""
        return self._lead is not None and not self._open

    @property
    def left(self) -> int:
        return len(self._open)

    @property
    def lead(self) -> str:
        """The donor whose numbers go with the state: the target's, or the newest that gave any."""
        brought = [(self._versions[donor], donor) for donor in self.brought]
        if self._lead is None:
            return ""
        return self._lead[1] if self._alike else max(brought, default=self._lead)[1]

    @property
    def giving(self) -> list[str]:
        return list(self._donors)

    def may_ask(self, donor: str, now: float) -> bool:
        """Neither banned, nor resting, nor asked already."""
        away = donor in self.banned or donor in self._donors
        return not away and now >= self._rests.get(donor, now)

    def deadline_s(self, donor: str) -> float:
        """How long this donor may bring nothing: median and deviations of what it did before."""
        gaps = self._donors[donor].gaps
        if len(gaps) < ENOUGH:
            return FIRST_S
        median = statistics.median(gaps)
        mad = statistics.median(abs(gap - median) for gap in gaps)
        return min(max(median + K_MAD * mad, 4 * median, FLOOR_S), CEILING_S)

    # ---- what happens ---------------------------------------------------------------------------

    def offered(self, donor: str, hashes: Sequence[bytes], version: int, now: float) -> bool:
        """A manifest is here. False: this donor is of no use now; it may be asked again later."""
        self._versions[donor] = version
        entry = self._donors[donor] = _Donor(hashes, version, moved_at=now)
        if self._alike:
            others = [name for name in self._donors if name != donor]
            if self._target is None or not (others and self._reachable()):
                self._aim(donor)
        elif self._newest() > FAR_BEHIND * version:
            self.rest(donor, MAX_REST_S, now)
            return False
        else:
            self._open -= {c for c in self._open if self._held[c] == hashes[c]}
            self._lead = max(self._lead or (version, donor), (version, donor))
        entry.ahead = deque(c for c in sorted(self._open) if entry.holds(c, self._target))
        if not entry.ahead and self._open:
            self.rest(donor, 2 * REST_S, now)
            return False
        return True

    def claim(self, donor: str, chunk: int, now: float) -> bool:
        """A chunk has come. True: check it, put it in its place, then say ``placed``.

        False: another donor's is in that place, or on its way there; two must never mix in it.
        """
        entry = self._donors[donor]
        entry.gaps.append(now - entry.moved_at)
        entry.moved_at = now
        if (
            chunk in self._landing
            or chunk not in self._open
            or not entry.holds(chunk, self._target)
        ):
            entry.asked.pop(chunk, None)
            return False
        self._landing[chunk] = donor
        return True

    def placed(self, donor: str, chunk: int, now: float) -> None:
        """It was sound."""
        entry = self._donors[donor]
        entry.asked.pop(chunk, None)
        del self._landing[chunk]
        self._held[chunk] = entry.hashes[chunk]
        self._by[chunk] = donor
        if entry.holds(chunk, self._target):
            self._open.discard(chunk)
        self._failures[donor] = 0
        self.brought[donor] += 1
        self.progress_at = now

    def lost(self, donor: str, now: float) -> None:
        """Its stream ended or stalled: others bring what it had still to bring."""
        self._failures[donor] += 1
        self.rest(donor, REST_S * 2.0 ** min(self._failures[donor] - 1, 8), now)

    def ban(self, donor: str, why: str) -> None:
        """It sent what it must not send: nothing of it counts in this join, of before neither."""
        self.banned[donor] = why
        for chunk in [chunk for chunk, by in self._by.items() if by == donor]:
            del self._by[chunk]
            self._held[chunk] = b""
            self._open.add(chunk)
        del self.brought[donor]
        self._drop(donor)
        if self._lead is not None and self._lead[1] == donor:
            self._lead = self._target = None
            left = [(entry.version, name) for name, entry in self._donors.items()]
            if left and self._alike:
                self._aim(max(left)[1])
            self._lead = max(left, default=None)
        for entry in self._donors.values():
            entry.ahead = deque(c for c in sorted(self._open) if entry.holds(c, self._target))

    def rest(self, donor: str, seconds: float, now: float) -> None:
        """It is left alone for a while: busy, or of no use."""
        self._rests[donor] = now + min(max(seconds, 0.1), MAX_REST_S)
        self._drop(donor)

    # ---- what to do -----------------------------------------------------------------------------

    def next(self, donor: str, now: float) -> list[int]:
        """Chunks to ask of this donor now; they count as asked."""
        entry = self._donors[donor]
        chosen: list[int] = []
        # Fewer at a time near the end, so that all are done at about the same time.
        most = min(AHEAD, 1 + len(self._open) // (2 * len(self._donors)))
        while len(entry.asked) < most and (chunk := self._choose(entry, now)) is not None:
            if not entry.asked:
                entry.moved_at = now
            entry.asked[chunk] = now
            chosen.append(chunk)
        return chosen

    # ---- inside ---------------------------------------------------------------------------------

    def _choose(self, entry: _Donor, now: float) -> int | None:
        taken = {chunk for other in self._donors.values() for chunk in other.asked}
        while entry.ahead:
            chunk = entry.ahead.popleft()
            if chunk in self._open and chunk not in taken:
                return chunk
        return self._second(entry, now)

    def _second(self, entry: _Donor, now: float) -> int | None:
        """The chunk that another donor has owed for longest, if this one would be faster."""
        if not entry.gaps or entry.asked:
            return None
        usual = statistics.median(entry.gaps)
        owed = [
            (since, chunk)
            for other in self._donors.values()
            if other is not entry
            for chunk, since in other.asked.items()
            if chunk in self._open
            and now - since > 2 * AHEAD * usual
            and entry.holds(chunk, self._target)
        ]
        twice = Counter(c for d in self._donors.values() for c in d.asked)
        return min(((s, c) for s, c in owed if twice[c] < 2), default=(0.0, None))[1]

    def _drop(self, donor: str) -> None:
        entry = self._donors.pop(donor, None)
        if entry is None:
            return
        self._landing = {chunk: by for chunk, by in self._landing.items() if by != donor}
        if self._alike and self._donors and not self._reachable():
            self._aim(max(self._donors, key=lambda name: self._donors[name].version))
        for chunk in sorted(entry.asked, reverse=True):
            for other in self._donors.values():
                if chunk in self._open and other.holds(chunk, self._target):
                    other.ahead.appendleft(chunk)

    def _reachable(self) -> bool:
        """Whether those who give could still bring everything that the target lacks."""
        entries = self._donors.values()
        return all(any(e.holds(chunk, self._target) for e in entries) for chunk in self._open)

    def _aim(self, donor: str) -> None:
        """This donor's version it is from now on; what is there already and is the same stays."""
        hashes = self._donors[donor].hashes
        self._target, self._lead = hashes, (self._donors[donor].version, donor)
        self._open = {c for c, held in enumerate(self._held) if held != hashes[c]}
        for entry in self._donors.values():
            entry.ahead = deque(c for c in sorted(self._open) if entry.holds(c, hashes))

    def _newest(self) -> int:
        return self._lead[0] if self._lead else 0
