"""Who is called to a group and who has joined: the part of a meeting before its roster."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """What a call is for. ``size`` and ``quorum`` count the leader."""

    candidates: tuple[str, ...]
    """Whom to call, best first."""
    size: int
    quorum: int
    """With so many a meeting is worth it: others get as long again as it took, no longer."""
    patience_s: float
    """The deadline of the call: then two are enough."""
    brief_s: float = math.inf
    """So long those are called again that decline and do not say that they are about to come."""


class Gathering:
    """Keeps as many calls open as seats are free; alternates first, decliners again later."""

    def __init__(self, aim: Aim, now: float) -> None:
        self.joined: list[str] = []
        self._began = now
        self._ends_at = now + aim.patience_s
        self._brief_until = now + aim.brief_s
        self._aim = aim
        self._unasked = list(aim.candidates)
        self._calling: set[str] = set()
        self._again: dict[str, float] = {}
        self.abandoned = False
        """A call of another leader goes before this one."""

    def invite(self, now: float) -> list[str]:
        """Whom to call now; each of them is then joined, declined or lost."""
        due = [peer for peer, at in self._again.items() if at <= now]
        chosen = [*self._unasked, *due][: max(0, self._free)]
        for peer in chosen:
            self._again.pop(peer, None)
        self._unasked = [peer for peer in self._unasked if peer not in chosen]
        self._calling.update(chosen)
        return chosen

    def join(self, peer: str, now: float) -> None:
        self._calling.discard(peer)
        self.joined.append(peer)
        if len(self.joined) + 1 >= self._aim.quorum:
            self._ends_at = min(self._ends_at, now + (now - self._began))

    def declined(self, peer: str, again_at: float, *, coming: bool = False) -> None:
        """It is called again. ``coming``: it said that it was not ready yet, but would be."""
        self._calling.discard(peer)
        if coming or again_at < self._brief_until:
            self._again[peer] = again_at

    def lost(self, peer: str) -> None:
        """It cannot be reached, or left before the roster."""
        self._calling.discard(peer)
        if peer in self.joined:
            self.joined.remove(peer)

    def closed(self, now: float) -> bool:
        """No more calls: all seats are taken, nobody is left to call, or it is too late."""
        full = len(self.joined) + 1 >= self._aim.size
        nobody = not (self._unasked or self._calling or self._again)
        return self.abandoned or full or nobody or now >= self._ends_at

    def next_at(self) -> float:
        """When to look again if nothing happens."""
        again = [at for at in self._again.values() if self._free > 0]
        return min([self._ends_at, *again])

    @property
    def _free(self) -> int:
        return self._aim.size - 1 - len(self.joined) - len(self._calling)


def together(me: str, members: Iterable[str]) -> tuple[str, ...]:
    """The order of seats: the leader, then who joined, by id."""
    return (me, *sorted(members))
