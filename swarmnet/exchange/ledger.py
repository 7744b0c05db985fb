"""What became of meetings: the acceptor's memory of decisions, the offerer's open questions.

Both are bounded. A decision older than ``MEMORY`` others is forgotten and answered ``dropped``,
which is why an offerer gives a question up after ``PATIENCE_WINDOWS`` windows, long before.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from swarmnet.wire.messages import Answer, Outcome, Phase

MEMORY = 4096
MAX_PENDING = 4
PATIENCE_WINDOWS = 20
GROUP_ROUNDS = 1 << 61
"""Decisions of groups are numbered from here, so a number tells which ledger holds it."""


class Decisions:
    """Acceptor's side: each (peer, round) is decided once and for all."""

    def __init__(self) -> None:
        self._decided: OrderedDict[tuple[str, int], Outcome] = OrderedDict()
        self._open: set[tuple[str, int]] = set()

    def known(self, peer: str, round_: int) -> Outcome | None:
        return self._decided.get((peer, round_))

    def begin(self, peer: str, round_: int) -> bool:
        """A stream for this round was accepted; False when one is under way already."""
        key = (peer, round_)
        if key in self._open or key in self._decided:
            return False
        self._open.add(key)
        return True

    def commit(self, peer: str, round_: int) -> bool:
        """Rule 4's moment: True exactly once, and never after ``dropped`` was told."""
        return self._decide(peer, round_, "applied")

    def drop(self, peer: str, round_: int) -> bool:
        """The stream ended without a commit; False when the round was applied before."""
        return self._decide(peer, round_, "dropped")

    def tell(self, peer: str, round_: int) -> Outcome:
        """Answer the offerer's question; an open or unknown round is dropped by being asked."""
        self._decide(peer, round_, "dropped")
        return self._decided[(peer, round_)]

    def _decide(self, peer: str, round_: int, outcome: Outcome) -> bool:
        key = (peer, round_)
        self._open.discard(key)
        if key in self._decided:
            return False
        self._decided[key] = outcome
        while len(self._decided) > MEMORY:
            self._decided.popitem(last=False)
        return True


CorrectionT = TypeVar("CorrectionT")


@dataclass(frozen=True, eq=False)
class Open(Generic[CorrectionT]):
    """One open question of an offerer: what it will apply if the partner did."""

    peer: str
    round: int
    correction: CorrectionT
    window: int
    phase: Phase = "train"
    step: int = 0
    """Inner steps behind the snapshot that was sent."""
    witnesses: tuple[str, ...] = ()
    """Who else may know what became of it, when ``peer`` led a group and is gone."""


class Pending(Generic[CorrectionT]):
    """Offerer's side: corrections whose fate only the partner knows."""

    def __init__(self) -> None:
        self._open: list[Open[CorrectionT]] = []
        self._owed: dict[Open[CorrectionT], None] = {}
        self.given_up = 0
        """Questions never answered: each may have shifted the swarm's mean by its correction."""

    def add(self, item: Open[CorrectionT]) -> None:
        self._open.append(item)
        self._owed[item] = None
        while len(self._open) > MAX_PENDING:
            del self._owed[self._open.pop(0)]
            self.given_up += 1

    def owed(self) -> list[Open[CorrectionT]]:
        """What a checkpoint keeps beside the weights: questions whose correction may come, or has
        come and is not in the weights yet. Asked again after a restart, they get the same answer.
        Safe from the training thread."""
        return list(self._owed)

    def settled(self, item: Open[CorrectionT]) -> None:
        """Training thread: the correction is in the weights."""
        self._owed.pop(item, None)

    def of(self, peer: str) -> list[Open[CorrectionT]]:
        return [item for item in self._open if item.peer == peer]

    def peers(self) -> list[str]:
        return sorted({item.peer for item in self._open})

    def asked(self) -> set[str]:
        """Everybody who may answer an open question."""
        return {peer for item in self._open for peer in (item.peer, *item.witnesses)}

    def resolve(self, item: Open[CorrectionT], outcome: Answer) -> CorrectionT | None:
        """The partner answered: the correction to apply late, or None. Idempotent."""
        if item not in self._open or outcome == "unknown":
            return None
        self._open.remove(item)
        if outcome == "applied":
            return item.correction
        del self._owed[item]
        return None

    def expire(self, window: int, dead: set[str]) -> int:
        """Drop what is too old to be answered; returns how many.

        Until then a partner that looks dead may come back out of a partition. One that stays
        dead took its half of the meeting with it, so only the others count as given up.
        """
        old = [item for item in self._open if window - item.window > PATIENCE_WINDOWS]
        self.given_up += sum(item.peer not in dead for item in old)
        self._open = [item for item in self._open if item not in old]
        for item in old:
            del self._owed[item]
        return len(old)

    def __len__(self) -> int:
        return len(self._open)
