"""Whether a peer may be asked: bans that double, full queues, and a careful way back."""

from __future__ import annotations

import math

FIRST_BAN_S = 2.0
LONGEST_BAN_S = 60.0
LAST_RESORT_S = 5.0
"""Where all of a stage are banned there is nobody to turn to instead: no ban is longer then."""
PROVEN = 4
"""Results in a row after which a peer is asked without a bound, and its faults are forgotten."""


class Standing:
    """One peer's record of faults, on the trainer's clock.

    A peer that returns from a ban gets one pick at a time until a result is back (half open),
    then one more with each result, as a newcomer does; after ``PROVEN`` in a row it is whole.
    """

    __slots__ = ("_banned_until", "_resort_at", "_retry_at", "good", "strikes")

    def __init__(self) -> None:
        self.strikes = 0
        self.good = 0
        self._banned_until = self._resort_at = self._retry_at = -math.inf

    @property
    def proven(self) -> bool:
        return self.good >= PROVEN

    @property
    def half_open(self) -> bool:
        """It was banned, and nothing has come back from it since."""
        return self.strikes > 0 and self.good == 0

    @property
    def free_at(self) -> float:
        """When the ban or the retry time ends, whichever is later; -inf: there was none."""
        return max(self._banned_until, self._retry_at)

    @property
    def resort_at(self) -> float:
        """The same where all others are banned too."""
        return max(self._resort_at, self._retry_at)

    def banned(self, now: float) -> bool:
        return now < self._banned_until

    def worked(self) -> None:
        """A result came back whole."""
        self.good += 1
        if self.proven:
            self.strikes = 0

    def full(self, retry_at: float) -> None:
        """It asked to be left alone until then."""
        self._retry_at = max(self._retry_at, retry_at)

    def fault(self, sent: float, now: float, stretch: float) -> bool:
        """What was sent at ``sent`` is lost. A ban, ``stretch`` (about 1) times its length.

        Several microbatches lost at once are one fault: what was sent before it could be asked
        again belongs to the trouble that caused the ban. Returns whether this is a new one.
        """
        self.good = 0
        if sent < self._resort_at:
            return False
        length = min(FIRST_BAN_S * 2.0 ** min(self.strikes, 32), LONGEST_BAN_S)
        self.strikes += 1
        self._banned_until = now + length * stretch
        self._resort_at = now + min(length, LAST_RESORT_S) * stretch
        return True
