"""When a stage steps, and who calls its peers together: a pure machine, one at each peer.

Peers of a stage tell each other tallies: which step they stand at, and the tokens in their sums.
When the sums of those that live and stand where I stand hold the global batch, one of them calls
the meeting: the first in an order that every step shuffles anew. The next in the order takes over
when nothing happens. A peer that is alone steps alone.

A stage at step v does not step before every other stage is at v, so step numbers stay within one
of each other. A stage that is stuck or empty therefore keeps all others from stepping. They go on
counting, and nothing is lost: samples that pass no empty stage end no trip, so what the others hold
is bounded by the windows of the trainers. A stage that is brought back from an older checkpoint
takes the step number of the others, else they would wait for it to catch up.

A mate with a greater past (``Past.rank``) has taken a step that I missed: my sums are worth nothing
then and I fetch its state. After a partition of a stage this makes one past of two; what the
smaller one committed is lost. A peer that cannot be reached but counts as alive is waited for, so
a short break does not get that far.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from swarmnet.exchange.gather import Aim
from swarmnet.pipeline.past import Commit, Past
from swarmnet.wire.messages import MAX_GROUP, Tally

MAX_TALLIES = 512


@dataclass(frozen=True)
class Place:
    """Where a peer stands, and what its stage aims at."""

    me: str
    stage: int
    stages: int
    target: int
    """Tokens behind one step, all peers of the stage together."""
    patience_s: float = 20.0
    """How long a call waits for a mate that says it is about to join: it would have to fetch the
    whole state afterwards."""
    brief_s: float = 1.5
    """How long for one that declines for another reason: it is fetching a state already, or stands
    elsewhere."""
    turn_s: float = 5.0
    """How long each in the order of leaders has before the next one tries."""


@dataclass(frozen=True)
class View:
    """The swarm as a peer sees it now."""

    mates: frozenset[str]
    """The other live peers of my stage."""
    steps: Mapping[int, int]
    """The newest known step of each stage, mine aside; of one that nobody serves the last known."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do for this peer, until this time at the latest if nothing is heard."""

    until: float | None
    ripe: bool
    """The global batch is there: whoever calls will find it whole."""


@dataclass(frozen=True)
class Lead:
    """Call these."""

    aim: Aim


@dataclass(frozen=True)
class Alone:
    """Step with the own sums."""


@dataclass(frozen=True)
class Resync:
    """A step was missed: drop all sums, fetch the state from one of these."""

    donors: tuple[str, ...]


Act = Wait | Lead | Alone | Resync


class Assembly:
    """One peer's judgement of its stage. Times are the caller's seconds."""

    def __init__(self, place: Place, past: Past) -> None:
        self.place = place
        self.past = past
        self.flush = False
        """The run ends: step with what is there, whatever the other stages do."""
        self._tallies: dict[str, Tally] = {}
        self._latest: frozenset[str] = frozenset()
        """Who took the last step with me: they come where I am, if they live."""
        self._suspects: dict[str, float] = {}
        self._astray: dict[str, float] = {}
        """Since when live mates stand elsewhere, by their last word."""
        self._ripe_since: float | None = None
        self._again_at = 0.0

    # ---- what happens -----------------------------------------------------------------------

    def hear(self, peer: str, tally: Tally) -> None:
        """A peer's own word."""
        if tally.stage != self.place.stage:
            return
        self._tallies.pop(peer, None)
        self._tallies[peer] = tally
        self._suspects.pop(peer, None)
        if len(self._tallies) > MAX_TALLIES:
            self._tallies.pop(next(iter(self._tallies)))

    def tally(self, tokens: int) -> Tally:
        """My own word, with so many tokens in my sums."""
        past = self.past
        return Tally(
            stage=self.place.stage,
            step=past.step,
            lineage=past.lineage,
            committed=past.committed,
            tokens=tokens,
        )

    def suspect(self, peer: str, now: float) -> None:
        """It lives, as far as is known, and cannot be reached."""
        self._suspects[peer] = now + self.place.turn_s

    def failed(self, now: float) -> None:
        """My call came to nothing."""
        self._again_at = now + self.place.turn_s / 4

    def advance(self, commit: Commit) -> None:
        """The stage stepped, and I with it."""
        self.restart(commit.past)
        self._latest = frozenset(commit.works) - {self.place.me}

    def restart(self, past: Past) -> None:
        """From here I go on."""
        self.past = past
        self._latest = frozenset()
        self._ripe_since = None
        self._again_at = 0.0

    # ---- what follows -----------------------------------------------------------------------

    def look(self, tokens: int, view: View, now: float) -> Act:
        """What to do now, with so many tokens in my own sums; ask when no meeting is under way."""
        if donors := self._ahead(view):
            return Resync(donors)
        awaited_until = self._awaited_until(view, now)
        fitting = [peer for peer in sorted(view.mates) if self._fits(peer)]
        reached = [peer for peer in fitting if not self._suspected(peer, now)]
        total = tokens + sum(self._brings(peer) for peer in reached)
        if not self._ripe(total, view):
            self._ripe_since = None
            return Wait(None, False)
        if self._ripe_since is None:
            self._ripe_since = now
        # Live peers that have not said where they stand: they would have within a moment.
        strangers = [peer for peer in sorted(view.mates) if peer not in self._tallies]
        if now >= self._ripe_since + self.place.brief_s:
            strangers = []
        if now < awaited_until:
            return Wait(awaited_until, True)
        if not fitting and not strangers:
            return Alone()
        turn = max(self._turn(reached), self._again_at)
        if now < turn:
            return Wait(turn, True)
        called = [*reached, *(peer for peer in strangers if not self._suspected(peer, now))]
        if not called:
            return Wait(min(self._suspects[peer] for peer in (*fitting, *strangers)), True)
        return Lead(self._aim(called, len(reached)))

    def fate(self, commit: Commit, mates: frozenset[str]) -> Literal["applied", "dropped"] | None:
        """What mates' pasts tell of a commit that I promised and heard no more of."""
        told = [self._tallies[peer] for peer in mates if peer in self._tallies]
        after = [tally for tally in told if tally.step >= commit.past.step]
        if any(tally.lineage == commit.past.lineage for tally in after):
            return "applied"
        return "dropped" if after else None

    # ---- inside -----------------------------------------------------------------------------

    def _ahead(self, view: View) -> tuple[str, ...]:
        ranks = {
            peer: (tally.step, tally.committed, tally.lineage)
            for peer in view.mates
            if (tally := self._tallies.get(peer)) is not None
        }
        best = max(ranks.values(), default=self.past.rank)
        if best <= self.past.rank:
            return ()
        return tuple(sorted(peer for peer, rank in ranks.items() if rank == best))

    def _awaited_until(self, view: View, now: float) -> float:
        """For whom stands elsewhere by its last word: that is old, or it fetches the state.

        Without that two mates whose words are on their way would each step alone, and one of the
        two pasts would be lost. Each is waited for once until it stands where I stand again.
        """
        astray = (p for p in view.mates if p in self._tallies and not self._fits(p))
        self._astray = {peer: self._astray.get(peer, now) for peer in astray}
        since = (at for peer, at in self._astray.items() if not self._suspected(peer, now))
        return max(since, default=-math.inf) + self.place.brief_s

    def _fits(self, peer: str) -> bool:
        """It stands where I stand, or will in a moment."""
        tally = self._tallies.get(peer)
        if tally is None:
            return False
        if (tally.step, tally.lineage) == (self.past.step, self.past.lineage):
            return True
        return peer in self._latest and tally.step == self.past.step - 1

    def _brings(self, peer: str) -> int:
        tally = self._tallies[peer]
        return tally.tokens if tally.step == self.past.step else 0

    def _suspected(self, peer: str, now: float) -> bool:
        return self._suspects.get(peer, now) > now

    def _ripe(self, total: int, view: View) -> bool:
        if self.flush:
            return total > 0
        others = (stage for stage in range(self.place.stages) if stage != self.place.stage)
        level = all(view.steps.get(stage, 0) >= self.past.step for stage in others)
        return level and total >= self.place.target

    def _turn(self, reached: list[str]) -> float:
        assert self._ripe_since is not None
        mine = self._order(self.place.me)
        before = sum(self._order(peer) < mine for peer in reached)
        return self._ripe_since + before * self.place.turn_s

    def _order(self, peer: str) -> bytes:
        return hashlib.sha256(f"{self.past.step} {peer}".encode()).digest()

    def _aim(self, called: list[str], known: int) -> Aim:
        """All that fit are waited for; whoever is left out has a whole state to fetch."""
        size = min(len(called) + 1, MAX_GROUP)
        quorum, place = min(max(2, known + 1), size), self.place
        return Aim(tuple(called), size, quorum, place.patience_s, place.brief_s)
