"""Which blocks one peer reads: it sweeps the places that all peers share, and takes its own.

A place is a block of an epoch; all peers pass them in the same order. A place belongs to the
reader with the highest hash of place and peer (rendezvous hashing; Thaler and Ravishankar 1998),
so whoever leaves or comes moves only its own. What a peer has read is therefore told by two
numbers, where it began and how far it has come, and three things follow:

- a reader counts for the places from its ``since`` on, so whoever comes, or comes back, takes
  nobody's earlier ones; with another ``since`` it is another reader;
- of a reader that is gone, the places that it had come past count as read, and its heirs turn back
  for those that it had not come to and they have come past, one epoch at most;
- a place of another epoch has another hash: shares are dealt anew, and nobody waits for anybody.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarmnet.sharing import Position, View
from swarmnet.sharing._order import mixed, word

AHEAD = 1024
"""Places that are dealt out at once."""
BACK_AT_ONCE = 1 << 16
MAX_GAP = 1 << 17
"""Places that an heir turns back: to look for its own in them takes a moment of a step."""
MAX_BACK = 64
MAX_GONE = 1024
"""Readers remembered that are gone and were ahead; those furthest behind are forgotten first."""
Places = NDArray[np.int64]
Key = tuple[str, int]
"""A peer, and where it began."""


@dataclass
class _Reader:
    """Another reader. Once it is gone, ``read`` is where it stopped."""

    hash: int
    since: int
    read: int
    gone: bool = False

    def counts(self, places: Places) -> NDArray[np.bool_]:
        """For which of ``places`` it is one of those that may read them, or have read them."""
        began: NDArray[np.bool_] = places >= self.since
        return began & (places < self.read) if self.gone else began


@dataclass
class _Gap:
    """Places from ``start`` to ``stop`` of which a reader that is gone would have had its share."""

    start: int
    stop: int
    reader: Key


class Sweep:
    """One reader's way through the places; ``blocks`` are in an epoch."""

    def __init__(self, me: str, seed: int, blocks: int) -> None:
        self.since = 0
        self.at = 0
        """The first place that was not looked at yet."""
        self._me = me
        self._seed = seed
        self._hash = word(seed, me)
        self._blocks = blocks
        self._others: dict[Key, _Reader] = {}
        self._back: deque[_Gap] = deque(maxlen=MAX_BACK)
        self._dealt: deque[int] = deque()
        self._dealt_to = 0

    def follow(self, place: int) -> None:
        """Begin at ``place``, as a new reader."""
        self.since = self.at = place
        self._back.clear()
        self._deal_anew()

    # ---- who reads ------------------------------------------------------------------------------

    def see(self, view: View) -> None:
        """Who else reads now, and how far they have come."""
        spans = {(peer, since): read for peer, (since, read) in view.items() if peer != self._me}
        for key, known in self._others.items():
            if not known.gone and key not in spans:
                self._miss(key, known)
        for key, read in spans.items():
            self._meet(key, read)
        self._forget()

    def _miss(self, key: Key, known: _Reader) -> None:
        """What it had not come to is for its heirs, also where I am past it."""
        known.gone, known.read = True, max(known.since, known.read)
        start = max(known.read, self.since, self.at - min(self._blocks, MAX_GAP))
        if start < self.at:
            self._back.append(_Gap(start, self.at, key))
        self._deal_anew()

    def _meet(self, key: Key, read: int) -> None:
        known = self._others.get(key)
        if known is None or known.gone:
            self._others[key] = _Reader(word(self._seed, key[0]), key[1], read)
            self._back = deque((gap for gap in self._back if gap.reader != key), MAX_BACK)
            self._deal_anew()
        else:
            known.read = read

    def _forget(self) -> None:
        """Who is gone and was behind decides about no place that is still to come."""
        kept = {gap.reader for gap in self._back}
        floor = min((gap.start for gap in self._back), default=self.at)
        gone = sorted((r.read, k) for k, r in self._others.items() if r.gone and k not in kept)
        spare = len(gone) - MAX_GONE
        for index, (read, key) in enumerate(gone):
            if read <= floor or index < spare:
                del self._others[key]

    # ---- which places ---------------------------------------------------------------------------

    def next(self) -> int:
        """My next place: first those that somebody left behind, then on in the sweep."""
        while self._back:
            gap = self._back[0]
            stop = min(gap.stop, gap.start + BACK_AT_ONCE)
            found = self._mine(np.arange(gap.start, stop), gap.reader)
            gap.start = int(found[0]) + 1 if found.size else stop
            if gap.start >= gap.stop:
                self._back.popleft()
            if found.size:
                return int(found[0])
        while not self._dealt:
            places = np.arange(self._dealt_to, self._dealt_to + AHEAD)
            self._dealt.extend(self._mine(places).tolist())
            self._dealt_to += AHEAD
        self.at = self._dealt.popleft() + 1
        return self.at - 1

    def _deal_anew(self) -> None:
        self._dealt.clear()
        self._dealt_to = self.at

    def _mine(self, places: Places, instead_of: Key | None = None) -> Places:
        """Those of ``places`` that are mine; of a reader that is gone, those that were its own.

        Each reader is asked only for what no earlier one has taken: n log(readers) hashes.
        """
        hashes = mixed(places.astype(np.uint64) ^ np.uint64(word(self._seed)))
        mine = mixed(hashes ^ np.uint64(self._hash))
        if instead_of:
            lost = self._others[instead_of]
            kept = (places >= lost.since) & (mixed(hashes ^ np.uint64(lost.hash)) > mine)
            places, hashes, mine = places[kept], hashes[kept], mine[kept]
        for key, reader in self._others.items():
            if key != instead_of and places.size:
                taken = reader.counts(places) & (mixed(hashes ^ np.uint64(reader.hash)) > mine)
                places, hashes, mine = places[~taken], hashes[~taken], mine[~taken]
        return places

    # ---- the way to a checkpoint and back -------------------------------------------------------

    def position(self) -> Position:
        others = [[key[0], r.since, r.read, r.gone] for key, r in self._others.items()]
        back = [[gap.start, gap.stop, *gap.reader] for gap in self._back]
        return {"since": self.since, "at": self.at, "others": others, "back": back}

    def resume(self, position: Position) -> None:
        others = {
            (str(peer), int(since)): _Reader(
                word(self._seed, peer), int(since), int(read), bool(gone)
            )
            for peer, since, read, gone in position["others"]
        }
        back = [
            _Gap(int(a), int(b), (str(peer), int(since))) for a, b, peer, since in position["back"]
        ]
        self.since, self.at = int(position["since"]), int(position["at"])
        self._others, self._back = others, deque(back, MAX_BACK)
        self._deal_anew()
