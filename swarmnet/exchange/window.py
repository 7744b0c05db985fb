"""When to meet: the pure decisions of one peer between two meetings.

There is no global round. A *window* begins with the snapshot of the last meeting and is over with
the next one, or with going alone. The cadence says when the window is ripe (offer) and when an
offer is welcome (accept). All times are seconds of the caller's clock.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from swarmnet.cadence import Cadence
from swarmnet.cadence import Window as Pace
from swarmnet.exchange.gather import Aim
from swarmnet.exchange.waiting import Waiters
from swarmnet.matching import Matching
from swarmnet.wire.messages import Decline, DeclineReason, Hint

HISTORY = 16
RETRY_BUSY_S = 0.05
MAX_RETRY_S = 5.0
SHORTEST_CALL_S = 1.0
LOOKAHEAD = 64
LONGEST_WINDOW = 1 << 16


@dataclass(frozen=True)
class OfferTo:
    peer: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do before the next boundary, or before this time."""

    until: float | None = None


class GoSolo:
    """Nobody was free while the window was ripe: take the outer step alone."""


@dataclass(frozen=True)
class CallGroup:
    aim: Aim


Decision = OfferTo | Wait | GoSolo


class Window:
    """One peer's own pace. ``boundary`` is called after every inner step."""

    def __init__(self, me: str, cadence: Cadence, matching: Matching, rng: random.Random) -> None:
        self.me = me
        self.number = 0
        self._cadence = cadence
        self._matching = matching
        self._rng = rng
        self._pace = Pace(steps_since=0, total_steps=0, progress=0.0)
        self.origin = 0
        self._worked_from = 0
        self._boundary_at = 0.0
        self._step_s = 0.0
        self._ripe_at: int | None = None
        self._not_before: dict[str, float] = {}
        self._order: list[str] = []
        self.history: deque[str] = deque(maxlen=HISTORY)
        self.waiters = Waiters()

    def boundary(self, total_steps: int, progress: float, now: float) -> None:
        """An inner step is done."""
        if total_steps > self._pace.total_steps and self._boundary_at:
            took = (now - self._boundary_at) / (total_steps - self._pace.total_steps)
            self._step_s += 0.2 * (took - self._step_s) if self._step_s else took
        self._boundary_at = now
        self._pace = self._pace_at(total_steps, progress)

    def ripen(self, total_steps: int) -> None:
        """A newcomer meets before its first own step: its displacement is zero, weighs nothing."""
        self._worked_from = total_steps
        for since in range(1, LONGEST_WINDOW):
            if self._cadence.ready(Pace(since, total_steps, 0.0)):
                self.origin = total_steps - since
                return

    def resume(self, total_steps: int) -> None:
        """A peer that comes back has not worked for anybody's mean yet."""
        self._worked_from = total_steps

    def work(self, snapshot_steps: int) -> int:
        """Inner steps behind the displacement of the snapshot of this step."""
        return max(0, snapshot_steps - self._worked_from)

    def welcome_at(self, total_steps: int, progress: float) -> bool:
        """Whether an offer would be accepted after this step. Safe from the training thread."""
        return self._cadence.willing(self._pace_at(total_steps, progress))

    @property
    def willing(self) -> bool:
        return self._cadence.willing(self._pace)

    @property
    def ripe(self) -> bool:
        return self._cadence.ready(self._pace)

    def opens_in(self, now: float, *, busy: bool) -> float:
        """Seconds until an offer will be welcome, from the pace of my own steps.

        While ``busy`` the window is about to be over, and another one begins.
        """
        since = 0 if busy else self._pace.steps_since
        for ahead in range(1, LOOKAHEAD):
            pace = Pace(since + ahead, self._pace.total_steps + ahead, 0.0)
            if self._cadence.willing(pace):
                return max(0.0, ahead * self._step_s - (now - self._boundary_at))
        return LOOKAHEAD * self._step_s

    def next(self, live: Sequence[str], now: float) -> Decision:
        """What a free peer with a snapshot does now, given who is alive."""
        if not self.ripe:
            return Wait()
        if self._ripe_at is None:
            self._ripe_at = self._pace.total_steps
            self._order = self._matching.candidates(self.me, live, list(self.history), self._rng)
        known = set(live)
        reachable = [peer for peer in self._order if peer in known]
        if not reachable:
            return GoSolo()
        unasked = [peer for peer in reachable if peer not in self._not_before]
        waiting = self.waiters.among(unasked, now, self._step_s)
        if waiting:
            self.waiters.settle(waiting[0], now)  # nobody else should be sent to it meanwhile
            return OfferTo(waiting[0])
        asked = [peer for peer in reachable if peer in self._not_before]
        if unasked and len(asked) <= self._waited():
            return OfferTo(unasked[0])
        if self._impatient():
            return GoSolo()
        again = min(asked, key=self._not_before.__getitem__)
        if self._not_before[again] <= now:
            return OfferTo(again)
        return Wait(self._not_before[again])

    def meeting_size(self, live: Sequence[str]) -> int:
        """How many the matching lets meet at once; above two ``next_call`` decides."""
        return self._matching.size(len(live) + 1)

    def next_call(self, live: Sequence[str]) -> CallGroup | Wait | GoSolo:
        """What a free peer with a snapshot does now where groups meet.

        The first of my group in the shared order calls as soon as it is ripe; the others wait
        to be called, each for one patience longer than the one before it.
        """
        if not self.ripe:
            return Wait()
        if self._ripe_at is None:
            self._ripe_at = self._pace.total_steps
            self._order = self._matching.candidates(self.me, live, list(self.history), self._rng)
        if not live:
            return GoSolo()
        group = self._matching.group(self.me, [*live, self.me], self.number, 0)
        patience = max(1, (self._ripe_at - self.origin) // 2)
        turn = group.index(self.me) * patience
        if self._waited() < turn:
            return Wait()
        if self._waited() >= turn + patience:
            return GoSolo()
        known = set(live)
        order = dict.fromkeys(peer for peer in (*group, *self._order) if peer in known)
        n = len(live) + 1
        wait_s = max(SHORTEST_CALL_S, patience * self._step_s)
        size, quorum = self._matching.size(n), self._matching.quorum(n)
        return CallGroup(Aim(tuple(order), size, quorum, wait_s))

    def declined(self, peer: str, decline: Decline, now: float) -> None:
        """``peer`` knows now that I wait, and will call when it is ripe; I call again later.

        Its hints are peers that called it in vain, as I did.
        """
        patience = min(max(decline.retry_s, RETRY_BUSY_S), MAX_RETRY_S)
        self._not_before[peer] = now + patience + self._step_s / 4
        self.waiters.settle(peer, now)
        for hint in decline.waiting:
            if hint.peer != self.me:
                self.waiters.add(hint.peer, now - hint.age_s)

    def called(self, peer: str, now: float) -> None:
        """I declined an offer of ``peer``: it waits."""
        self.waiters.add(peer, now)

    def hints(self, asker: str, now: float) -> tuple[Hint, ...]:
        """Whom I tell ``asker`` to call instead of me."""
        return self.waiters.hints(asker, now, self._step_s)

    def unreachable(self, peer: str) -> None:
        """Not in this window again."""
        if peer in self._order:
            self._order.remove(peer)

    def over(self, snapshot_steps: int | None, partner: str | None, now: float) -> None:
        """The window ended with a meeting, or alone, that used the snapshot of this step.

        None: alone and without using any; the next window begins where this one was ripe.
        """
        self.number += 1
        ripe_at = self._ripe_at if self._ripe_at is not None else self._pace.total_steps
        self.origin = snapshot_steps if snapshot_steps is not None else ripe_at
        self._worked_from = self.origin
        self._ripe_at = None
        self._order = []
        self._not_before.clear()
        self._pace = self._pace_at(self._pace.total_steps, self._pace.progress)
        if partner is not None:
            self.waiters.settle(partner, now)
            self.history.append(partner)

    def _pace_at(self, total_steps: int, progress: float) -> Pace:
        return Pace(max(0, total_steps - self.origin), total_steps, progress)

    def _waited(self) -> int:
        """Steps since the window was ripe: each allows one more stranger to be asked."""
        assert self._ripe_at is not None
        return self._pace.total_steps - self._ripe_at

    def _impatient(self) -> bool:
        """Ripe for half as many steps again as it took to ripen, and at least one."""
        assert self._ripe_at is not None
        return self._waited() >= max(1, (self._ripe_at - self.origin) // 2)


def refuse(window: Window, *, busy: bool, has_snapshot: bool) -> DeclineReason | None:
    """Why an offer in the training phase is declined now; None accepts it."""
    if busy:
        return "busy"
    if not window.willing or not has_snapshot:
        return "early"
    return None
