"""Who is alive, as seen from one peer: a pure function of what was heard and a monotonic clock.

A peer counts as alive while its counter moved within three renewals *on the reader's own clock*,
so clocks that disagree change nothing. It is heard in three ways:

- its signed record in the phone book: its own word, read now and then;
- the first part of a digest, over its own stream: its own word, as fresh as can be;
- rumours in others' digests: they move the clock of its life, never its state, its work or its
  incarnation. An older counter is ignored and one ahead of time is refused, so a stale rumour can
  neither kill nor revive anybody, and a lie ends with the next own word.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice

from swarmnet.exchange.departed import Departed
from swarmnet.exchange.member import RENEWALS_UNTIL_DEAD, Member, Status
from swarmnet.wire.messages import MAX_RUMOURS, Digest, Rumour, Word

__all__ = ["RENEWALS_UNTIL_DEAD", "STATES", "Membership", "Status"]

STATES = ("syncing", "training", "paused", "consensus", "serving", "left")
SOUGHT_AMONG = 4 * MAX_RUMOURS
FORGET_S = 60 * 60.0
"""Longer than any record can be read again: half an hour, on clocks ten minutes fast or slow."""
SWEEP_S = 60.0


@dataclass(frozen=True)
class _Answer:
    """Who was alive, until something changes or somebody's time is over."""

    version: int
    since: float
    until: float
    peers: tuple[str, ...]

    def holds(self, version: int, now: float) -> bool:
        return version == self.version and self.since <= now < self.until


class Membership:
    """The live view of one peer. All times are seconds on the caller's monotonic clock.

    Fed in one thread; ``alive``, ``is_dead`` and ``status`` may be asked from others.
    """

    def __init__(self, me: str, renew_s: float) -> None:
        self.me = me
        self.renew_s = renew_s
        self.news_at = float("-inf")
        """When we last heard of something that only the book can tell."""
        self._members: dict[str, Member] = {}
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._departed = Departed()
        self._version = 0
        self._answers: dict[tuple[tuple[str, ...], bool], _Answer] = {}
        self._sweep_at = float("-inf")

    # ---- what is heard ------------------------------------------------------------------------

    def observe(self, peer: str, status: Status, now: float) -> None:
        """A verified record of ``peer`` was read."""
        known = self._members.get(peer)
        if known is None:
            self._enter(peer, status, now)
            return
        if status.age <= known.status.age:
            return
        before = (known.status.state, self._live(known, now), known.heard)
        known.wrote(status, now, self.renew_s)
        self._changed(peer, before, now)

    def hear(self, peer: str, digest: Digest | None, now: float) -> None:
        """A frame of ``peer`` arrived over its own stream, hence whatever we suspected is over."""
        self.clear(peer)
        if digest is not None:
            self._spoke(peer, Status(**digest.mine.model_dump()), now)
            for rumour in digest.rumours:
                self._rumour(rumour, now)

    def suspect(self, peer: str, now: float, retry_s: float = 0.0) -> None:
        """A stream to ``peer`` failed; the book may know that it left, or moved.

        It is left alone for ``retry_s`` at least: what its link did before.
        """
        member = self._members.get(peer)
        if member is not None:
            member.suspect(now, self.renew_s, retry_s)
            self._version += 1
            self.news_at = now

    def clear(self, peer: str) -> None:
        """A frame of ``peer`` arrived: whatever we suspected was wrong or is over."""
        member = self._members.get(peer)
        if member is not None and member.strikes:
            member.clear()
            self._version += 1

    # ---- what is told -------------------------------------------------------------------------

    def digest(self, mine: Status, now: float) -> Digest:
        """My own word and a bounded choice of who else lives, for the next message."""
        word = Word(**asdict(mine))
        return Digest(mine=word, rumours=tuple(self._told(peer) for peer in self._chosen(now)))

    def alive(
        self, now: float, states: Iterable[str] = STATES[:-1], *, suspects: bool = False
    ) -> list[str]:
        """Ids of live peers in one of ``states``, sorted; suspects only when asked for."""
        return list(self._answer(now, tuple(states), suspects))

    def is_dead(self, peer: str, now: float) -> bool:
        """No sign of life within three renewals, or it said that it left."""
        member = self._members.get(peer)
        return member is None or not self._live(member, now)

    def status(self, peer: str) -> Status | None:
        member = self._members.get(peer)
        return member.status if member else None

    def ages(self, now: float) -> list[float]:
        """Seconds since the last sign of life of each live peer, youngest first."""
        live = self._answer(now, STATES[:-1], suspects=True)
        return sorted(now - self._members[peer].moved_at for peer in live)

    def swarm_tokens(self, mine: int, now: float) -> int:
        """Tokens read by the whole run: what peers said, extrapolated for as long as they lived."""
        total = float(mine + self._departed.tokens)
        for m in self._members.values():
            total += m.status.tokens
            if m.status.state == "training":
                until = now if self._live(m, now) else m.moved_at
                total += m.status.rate * max(0.0, until - m.said_at)
        return int(total)

    def committed(self) -> int:
        """Tokens in the steps of the stage that has most: a pipeline has read no less, though all
        who read them may be gone, and their counters with them."""
        known = (member.status.committed for member in self._members.values())
        return max([self._departed.committed, *known])

    def swarm_elapsed_s(self, mine: float, now: float) -> float:
        """Seconds since the run's first inner step, from whoever has trained longest."""
        elapsed = max(mine, self._departed.elapsed_s)
        for m in self._members.values():
            age = now - m.said_at if self._live(m, now) and m.status.elapsed_s else 0.0
            elapsed = max(elapsed, m.status.elapsed_s + age)
        return elapsed

    # ---- within -------------------------------------------------------------------------------

    def _enter(self, peer: str, status: Status, now: float) -> None:
        if peer == self.me or self._departed.is_old(peer, status.age):
            return
        self._members[peer] = Member.of(self._departed.rise(peer, status), now)
        self._recent[peer] = None
        self._version += 1
        self._sweep(now)

    def _spoke(self, peer: str, status: Status, now: float) -> None:
        known = self._members.get(peer)
        if known is None:
            self._enter(peer, status, now)
            self.news_at = now  # only its record says where it listens
            return
        before = (known.status.state, self._live(known, now), known.heard)
        known.spoke(status, now)
        self._changed(peer, before, now)

    def _rumour(self, rumour: Rumour, now: float) -> None:
        age = (rumour.incarnation, rumour.counter)
        known = self._members.get(rumour.peer)
        if known is None:
            if rumour.peer != self.me and not self._departed.is_old(rumour.peer, age):
                self.news_at = now
            return
        if known.status.state == "left" or age <= (known.status.incarnation, known.heard):
            return
        before = (known.status.state, self._live(known, now), known.heard)
        reborn = rumour.incarnation > known.status.incarnation
        if reborn or not known.rumoured(rumour.counter, now, self.renew_s):
            self.news_at = now
            return
        self._changed(rumour.peer, before, now)

    def _changed(self, peer: str, before: tuple[str, bool, int], now: float) -> None:
        member = self._members[peer]
        after = (member.status.state, self._live(member, now), member.heard)
        if after[2] != before[2]:
            self._recent.move_to_end(peer)
        if after[:2] != before[:2]:
            self._version += 1

    def _live(self, member: Member, now: float) -> bool:
        return now <= member.lives_until(self.renew_s)

    def _answer(self, now: float, states: tuple[str, ...], suspects: bool) -> tuple[str, ...]:
        known = self._answers.get((states, suspects))
        if known is not None and known.holds(self._version, now):
            return known.peers
        version, until, found = self._version, float("inf"), []
        for peer, member in list(self._members.items()):
            end = member.lives_until(self.renew_s)
            if now > end or member.status.state not in states:
                continue
            if suspects or member.suspect_until <= now:
                found.append(peer)
                until = min(until, end)
            else:
                until = min(until, member.suspect_until)
        peers = tuple(sorted(found))
        self._answers[states, suspects] = _Answer(version, now, until, peers)
        return peers

    def _chosen(self, now: float) -> list[str]:
        """The newest counters: they have spread least, and carry furthest.

        Looked for among those who moved last, so that the cost does not grow with the swarm.
        """
        live = (p for p in reversed(self._recent) if self._live(self._members[p], now))
        some = islice(live, SOUGHT_AMONG)
        return heapq.nlargest(MAX_RUMOURS - 1, some, key=lambda p: self._members[p].moved_at)

    def _told(self, peer: str) -> Rumour:
        member = self._members[peer]
        return Rumour(peer=peer, incarnation=member.status.incarnation, counter=member.heard)

    def _sweep(self, now: float) -> None:
        """Keep but a line of those that have long been dead."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        for peer, member in list(self._members.items()):
            if now - member.moved_at > FORGET_S:
                self._departed.bury(peer, member)
                del self._members[peer], self._recent[peer]
                self._version += 1
