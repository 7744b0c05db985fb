"""When to meet: the pure decisions of one peer between two meetings.

There is no global round. A *window* begins with the snapshot of the last meeting and is over with
the next one, or with going alone. The cadence says when the window is ripe (offer) and when an
offer is welcome (accept). All times are seconds of the caller's clock.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from swarmnet.cadence import Cadence
from swarmnet.cadence import Window as Pace
from swarmnet.exchange.gather import Aim
from swarmnet.exchange.waiting import Waiters
from swarmnet.matching import Matching
from swarmnet.wire.messages import Decline, DeclineReason, Hint

HISTORY = 16
RETRY_BUSY_S = 0.05
MAX_RETRY_S = 5.0
LOOKAHEAD = 1 << 12
TRUST, SOON, GAP, HOLD = 0.3, 0.5, 0.25, 0.6
"""In halves of a window, the time from a meeting until offers are welcome again. A peer is believed
to be free for ``TRUST`` after its window opened; nobody else is asked while an opening is known
that is not farther away than ``SOON``; strangers are asked ``GAP`` or a step apart, the first after
a random wait of up to ``HOLD``, in which those who open meanwhile may call."""
HOLD_ON, SURELY = 0.7, 0.8
"""In halves of a window, how long I wait for a partner that says HOLD; it says so when it believes
to open within this share of that time, and of its own patience."""
MAX_HOLD_S = 20.0
PAUSE_STEPS = 0.15
"""Between a call in vain and the next: many may have called the same peer at the same time."""
SHORTEST_CALL_S = 1.0
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
        self._boundary_at: float | None = None
        self._step_s = 0.0
        self._ripe_at: int | None = None
        self._stranger_at = 0.0
        self._again_at = 0.0
        self._not_before: dict[str, float] = {}
        self._order: list[str] = []
        self.history: deque[str] = deque(maxlen=HISTORY)
        self.waiters = Waiters()

    def boundary(self, total_steps: int, progress: float, now: float) -> None:
        """An inner step is done."""
        if total_steps > self._pace.total_steps and self._boundary_at is not None:
            took = (now - self._boundary_at) / (total_steps - self._pace.total_steps)
            self._step_s += 0.2 * (took - self._step_s) if self._step_s else took
        self._boundary_at = now
        self._pace = self._pace_at(total_steps, progress)

    def ripen(self, total_steps: int, progress: float) -> None:
        """A newcomer meets before its first own step: its displacement is zero, weighs nothing."""
        self._worked_from = total_steps
        for since in range(1, LONGEST_WINDOW):
            if self._cadence.ready(Pace(since, total_steps, progress, self._step_s)):
                self.origin = total_steps - since
                return

    @property
    def total_steps(self) -> int:
        """Inner steps done by the last boundary."""
        return self._pace.total_steps

    @property
    def step_s(self) -> float:
        """Seconds per inner step, smoothed; 0 while no step was seen."""
        return self._step_s

    def memory(self) -> dict[str, Any]:
        """Where this window stands, in JSON, for a checkpoint. Safe from the training thread."""
        version, internal, gauss = self._rng.getstate()
        return {
            "number": self.number,
            "origin": self.origin,
            "worked_from": self._worked_from,
            "history": list(self.history),
            "random": [version, list(internal), gauss],
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on in the window of a checkpoint: the weights hold the displacement since then."""
        self.number, self.origin = memory["number"], memory["origin"]
        self._worked_from = memory["worked_from"]
        self.history = deque(memory["history"], maxlen=HISTORY)
        version, internal, gauss = memory["random"]
        self._rng.setstate((version, tuple(internal), gauss))

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
        elapsed_s = 0.0 if self._boundary_at is None else now - self._boundary_at
        return max(0.0, self._steps_to_open(since) * self._step_s - elapsed_s)

    @property
    def patience_s(self) -> float:
        """For how long I wait for one partner's window to open."""
        return min(HOLD_ON * self._half_s, MAX_HOLD_S)

    def opens_within(self, patience_s: float, now: float) -> bool:
        """Whether an offer will surely be welcome so soon: steps do not all last as long."""
        soon_s = SURELY * min(patience_s, self.patience_s)
        return self._step_s > 0 and self.opens_in(now, busy=False) < soon_s

    def next(self, live: Sequence[str], now: float) -> Decision:
        """What a free peer with a snapshot does now, given who is alive."""
        if not self.ripe:
            return Wait()
        if self._ripe_at is None:
            self._ripe_at = self._pace.total_steps
            self._order = self._matching.candidates(self.me, live, list(self.history), self._rng)
            self._stranger_at = now + HOLD * self._half_s * self._rng.random()
        known = set(live)
        reachable = [peer for peer in self._order if peer in known]
        if not reachable:
            return GoSolo()
        return self._whom(reachable if self._ripe_for(1) else self._fresh(reachable), now)

    def _fresh(self, reachable: Sequence[str]) -> list[str]:
        """Without the latest partners, half of the swarm at most.

        Two that met open at the same moment: left to themselves they would meet for ever.
        """
        latest = islice(dict.fromkeys(reversed(self.history)), len(reachable) // 2)
        recent = set(latest)
        return [peer for peer in reachable if peer not in recent]

    def _whom(self, reachable: Sequence[str], now: float) -> Decision:
        """Somebody who has opened; somebody who will soon; a stranger; in this order."""
        opens = self.waiters.opening(reachable, now, TRUST * self._half_s)
        for peer in reachable:
            if peer in self._not_before:
                opens[peer] = max(self._not_before[peer], opens.get(peer, 0.0))
        opened = [peer for peer in opens if opens[peer] <= now]
        if opened and now < self._again_at and not self._ripe_for(2):
            return Wait(self._again_at)
        if opened and not self._ripe_for(2):
            return self._call(max(opened, key=opens.__getitem__))
        next_s = min((at for at in opens.values() if at > now), default=math.inf)
        if next_s <= now + SOON * self._half_s and not self._ripe_for(2):
            return Wait(next_s)
        strangers = [peer for peer in reachable if peer not in opens]
        if strangers and self._stranger_at <= now:
            return self._call(strangers[0])
        if self._ripe_for(1):
            return GoSolo()
        return Wait(min(next_s, self._stranger_at if strangers else math.inf))

    def _call(self, peer: str) -> OfferTo:
        self.waiters.forget(peer)  # nobody else should be sent to it meanwhile
        return OfferTo(peer)

    def alternate(self, live: Sequence[str], late: str) -> str | None:
        """Whom to ask as well while ``late`` does not answer: the next that was not asked yet."""
        known = set(live) - {late} - self._not_before.keys()
        return next((peer for peer in self._order if peer in known), None)

    def known_first(self, live: Sequence[str]) -> list[str]:
        """Latest partners, whose links are proven, then the others by chance."""
        others = set(live)
        known = [peer for peer in dict.fromkeys(reversed(self.history)) if peer in others]
        rest = sorted(others.difference(known))
        return known + self._rng.sample(rest, len(rest))

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
        """I call ``peer`` again when its window opens, if nobody has met me by then."""
        opens_s = min(max(decline.retry_s, RETRY_BUSY_S), max(MAX_RETRY_S, self._half_s))
        self._not_before[peer] = now + opens_s
        self._again_at = now + PAUSE_STEPS * self._step_s
        self._stranger_at = now + max(GAP * self._half_s, self._step_s)
        self.waiters.settle(peer, now, now + opens_s)

    def heard(self, hints: Sequence[Hint], now: float) -> None:
        """What a message told of the windows of others."""
        for hint in hints:
            if hint.peer != self.me:
                said_at = now - hint.age_s
                self.waiters.add(hint.peer, said_at, said_at + hint.opens_s)

    def called(self, peer: str, now: float) -> None:
        """I declined an offer of ``peer``: it waits."""
        self.waiters.settle(peer, now, now)

    def hints(self, asker: str, now: float) -> tuple[Hint, ...]:
        """Whom I tell ``asker`` to call, now or later."""
        return self.waiters.hints(asker, now, TRUST * self._half_s)

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
            self.waiters.settle(partner, now, now + self._half_s)
            self.history.append(partner)

    def _pace_at(self, total_steps: int, progress: float) -> Pace:
        return Pace(max(0, total_steps - self.origin), total_steps, progress, self._step_s)

    @property
    def _half_s(self) -> float:
        """Seconds from a meeting until I welcome the next offer."""
        return self._steps_to_open(0) * self._step_s

    def _steps_to_open(self, since: int) -> int:
        def willing(ahead: int) -> bool:
            return self._cadence.willing(
                Pace(
                    since + ahead,
                    self._pace.total_steps + ahead,
                    self._pace.progress,
                    self._step_s,
                )
            )

        return 1 + bisect_left(range(1, LOOKAHEAD), True, key=willing)

    def _waited(self) -> int:
        """Steps since the window was ripe."""
        assert self._ripe_at is not None
        return self._pace.total_steps - self._ripe_at

    def _ripe_for(self, patience: int) -> bool:
        """Ripe for ``patience`` times half as many steps again as it took to ripen, or as one."""
        assert self._ripe_at is not None
        half = max(1, (self._ripe_at - self.origin) // 2)
        return self._waited() >= patience * half


def refuse(window: Window, *, busy: bool, has_snapshot: bool) -> DeclineReason | None:
    """Why an offer in the training phase is declined now; None accepts it."""
    if busy:
        return "busy"
    if not window.willing or not has_snapshot:
        return "early"
    return None
