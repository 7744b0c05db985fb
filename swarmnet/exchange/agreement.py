"""What one peer knows of the consensus phase: how far it is from others, and who is done.

A meeting measures. The distance of two payloads is the root mean square of their difference, and
over random pairs of N replicas with disagreement s

    E[distance^2] = 2 N / (N - 1) * s^2   before the meeting;

the meeting itself takes distance^2 / 2 off the sum of squares N * s^2, and none ever adds to it.
So distances only speak of the past, always too loudly: once every peer's last distances are below
sqrt(2) * b, the disagreement is below b. The bound is relative to the largest distance that this
peer has measured in the phase, because how far replicas of a run stand apart is nothing that
a run file could know.

A peer that is within the bound is *calm*: it calls nobody to meet, but answers everybody who is
not. Two calm peers need no meeting, so calm, once all have it, lasts.
"""

from __future__ import annotations

import math
from collections import deque

from swarmnet.exchange.meeting import Scheduled
from swarmnet.wire.messages import DeclineReason

ROAMING = 1 << 20
"""Index of an offer outside of the schedule, above every scheduled round."""
CALM = ROAMING + 1
"""The same from a peer that is within the bound: it looks for those who are not."""
CHECKS = 2
"""Own distances in a row that must be small: one alone may be that of two equal outsiders."""
FLAT = 4
"""Meetings without a smaller distance: what is left is the codec's loss, and more bring nothing."""
FLAT_FROM, FLAT_TO = 0.9, 2.0
HISTORY = 16
ASKED = 32
"""In a large swarm so many in a row that are done stand for all."""


class Agreement:
    """Pure state of one peer's phase; whoever holds meetings tells it and asks it."""

    def __init__(self) -> None:
        self.bound = 0.0
        self.checks = CHECKS
        self.gathering = True
        self.roaming = False
        self.spoilt = False
        """Somebody who should follow my schedule does not."""
        self.over = False
        self.held = 0
        self.seen: set[str] = set()
        """Peers that called in this phase, whatever the phone book says of them."""
        self.done: set[str] = set()
        """Peers that said that they are calm, or gone, and nothing else since."""
        self.done_in_a_row = 0
        self.gone: set[str] = set()
        """Peers whose phase is over."""
        self.answers: dict[str, DeclineReason] = {}
        self.history: deque[str] = deque(maxlen=HISTORY)
        self.largest = 0.0
        self._distances: list[float] = []

    def met(self, peer: str, distance: float | None) -> None:
        """A meeting of the phase was applied; None: late, and its distance was not kept."""
        self.held += 1
        self.history.append(peer)
        self.answers.pop(peer, None)
        if distance is None:
            return
        self.largest = max(self.largest, distance)
        if self.roaming:
            self._distances.append(distance)

    def declined(self, peer: str, reason: DeclineReason) -> None:
        """``peer`` answered an offer of mine."""
        self.answers[peer] = reason
        if reason == "leaving":
            self.gone.add(peer)
        self._told(peer, done=reason in ("calm", "leaving"))

    def refuses(
        self, peer: str, index: int, scheduled: Scheduled, *, busy: bool
    ) -> DeclineReason | None:
        """Why an offer in the phase is declined now; None accepts it.

        Who roams meets anybody, also one that still follows its schedule. Who follows its
        schedule meets its partner, also when that one roams already.
        """
        self.seen.add(peer)
        self._told(peer, done=index == CALM)
        if self.over:
            return "leaving"
        if self.gathering:
            return "phase"
        if self.roaming:
            if index == CALM and self.calm:
                return "calm"
        elif peer != scheduled.partner or index not in (scheduled.index, ROAMING, CALM):
            return "index"
        elif index != scheduled.index:
            self.spoilt = True
        return "busy" if busy else None

    @property
    def index(self) -> int:
        """What my offers outside of the schedule say of me."""
        return CALM if self.calm else ROAMING

    @property
    def calm(self) -> bool:
        """Within the bound by my last measurements, or as near as the codec lets us come."""
        recent = self._distances[-self.checks :]
        if len(recent) < self.checks:
            return False
        return max(recent) <= self.bound * self.largest or self._flat()

    @property
    def disagreement(self) -> float:
        """Of the swarm, estimated from my last distances; NaN before any was measured."""
        recent = self._distances[-self.checks :]
        if not recent:
            return math.nan
        return math.sqrt(sum(distance**2 for distance in recent) / len(recent) / 2)

    def _flat(self) -> bool:
        before, last = self._distances[:-FLAT], self._distances[-FLAT:]
        if len(before) < CHECKS:
            return False
        least = min(before)
        return min(last) >= FLAT_FROM * least and max(last) <= FLAT_TO * least

    def _told(self, peer: str, *, done: bool) -> None:
        if done:
            self.done.add(peer)
            self.done_in_a_row += 1
        else:
            self.done.discard(peer)
            self.done_in_a_row = 0
