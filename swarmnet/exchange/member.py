"""What one peer knows of another: its newest own word, and how far rumours have carried it since.

A *word* is what a peer says of itself, in its signed record or over its own stream. It carries the
milliseconds that this life of the peer has lasted, so an age can be told without comparing clocks:
a counter that is 5,000 above that of a word which came at 12 s was true at 17 s on our own clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

RENEWALS_UNTIL_DEAD = 3
HEARSAY_RENEWALS = 12
"""Rumours alone carry nobody further than this past its own last word: they are not signed."""
AHEAD_RENEWALS = 2
"""How late a word may have come, hence how far ahead of it an honest rumour can seem to be."""


@dataclass(frozen=True)
class Status:
    """What a peer says of itself. ``tokens``, ``elapsed_s``, ``step``, ``committed`` only grow."""

    incarnation: int
    """Higher at every start of the peer's process; only its own words can raise it."""
    counter: int
    """Milliseconds since this incarnation began, on its own clock; higher with every word."""
    state: str
    role: str = "worker"
    tokens: int = 0
    elapsed_s: float = 0.0
    step: int = 0
    rate: float = 0.0
    """Tokens per second, so that readers can extrapolate between words."""
    stage: int = 0
    """Of a stage peer: what it serves."""
    serves: float = 0.0
    """Sequences per second that it can serve; 0: not measured yet."""
    demand: float = 0.0
    """Sequences per second that were asked of it lately."""
    settled_s: float = 0.0
    """For how long it has served its stage."""
    since: int = 0
    """Where it began to read, as a place in the order of blocks that all readers share."""
    read: int = 0
    """The place that its reading has come to."""
    committed: int = 0
    """Of a stage peer: tokens in the steps that its weights hold, whoever sent them."""

    @property
    def age(self) -> tuple[int, int]:
        return (self.incarnation, self.counter)


@dataclass
class Member:
    """All times are seconds on the reader's monotonic clock."""

    status: Status
    """Its newest own word; rumours carry no state."""
    said_at: float
    """When it said that."""
    heard: int
    """Newest counter of this incarnation, from words and rumours."""
    moved_at: float
    """When that counter was true: the last sign of life."""
    suspect_until: float = 0.0
    strikes: int = 0

    @classmethod
    def of(cls, status: Status, now: float) -> Member:
        return cls(status, now, status.counter, now)

    def lives_until(self, renew_s: float) -> float:
        """The last moment at which it counts as alive if nothing more is heard."""
        if self.status.state == "left":
            return float("-inf")
        quiet = self.moved_at + RENEWALS_UNTIL_DEAD * renew_s
        return min(quiet, self.said_at + HEARSAY_RENEWALS * renew_s)

    def wrote(self, status: Status, now: float, renew_s: float) -> None:
        """Its signed record, which may be as old as our last look into the book.

        A record that seems older than a life span is no sign of life, because the dead leave one
        too. It is a new start for the reckoning: its writer's clock may have stood still, and then
        the next record tells.
        """
        if not self._is_newer(status):
            return
        if status.incarnation > self.status.incarnation:
            self._begin(status, now)
            return
        issued = min(now, self._true_at(status.counter))
        if status.counter > self.heard:
            self.heard = status.counter
            if issued >= now - RENEWALS_UNTIL_DEAD * renew_s:
                self.moved_at = max(self.moved_at, issued)
            else:
                issued = now
        self.status, self.said_at = grown(self.status, status), issued

    def spoke(self, status: Status, now: float) -> None:
        """A frame over its own stream: nobody can know more of it at this moment."""
        if self._is_newer(status):
            self._begin(status, now)

    def rumoured(self, counter: int, now: float, renew_s: float) -> bool:
        """Somebody heard this counter. False when that cannot be true, or is too old to help."""
        true_at = self._true_at(counter)
        if true_at > now + AHEAD_RENEWALS * renew_s:
            return False
        if true_at < now - RENEWALS_UNTIL_DEAD * renew_s:
            return False
        self.heard, self.moved_at = counter, max(self.moved_at, min(now, true_at))
        return True

    def suspect(self, now: float, renew_s: float, retry_s: float) -> None:
        """A stream to it failed: leave it alone for a while, longer each time in a row."""
        self.strikes += 1
        self.suspect_until = now + max(retry_s, min(renew_s * 2.0 ** (self.strikes - 2), 60.0))

    def clear(self) -> None:
        self.suspect_until, self.strikes = 0.0, 0

    def _is_newer(self, status: Status) -> bool:
        left = self.status.state == "left" and status.incarnation == self.status.incarnation
        return not left and status.age > self.status.age

    def _begin(self, status: Status, now: float) -> None:
        if status.incarnation > self.status.incarnation:
            self.clear()
        self.status = grown(self.status, status)
        self.heard, self.said_at, self.moved_at = status.counter, now, now

    def _true_at(self, counter: int) -> float:
        return self.said_at + (counter - self.status.counter) / 1000


def grown(old: Status, new: Status) -> Status:
    """Counters only grow, also over a restart from an older checkpoint."""
    names = ("tokens", "elapsed_s", "committed")
    sunk = [name for name in names if getattr(old, name) > getattr(new, name)]
    return replace(new, **{name: getattr(old, name) for name in sunk}) if sunk else new
