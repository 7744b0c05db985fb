"""Who is alive, as seen from one peer: a pure function of what was heard and a monotonic clock.

A peer publishes a *status* whose counter rises at every renewal, within an incarnation that rises
at every start of its process. It counts as alive while its counter moved within three renewals
*on the reader's own clock*, so clocks that disagree change nothing. Rumours from other peers'
messages count like records; an older (incarnation, counter) is ignored, so a stale rumour can
neither kill nor revive anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from swarmnet.wire.messages import MAX_RUMOURS, Rumour

RENEWALS_UNTIL_DEAD = 3
STATES = ("syncing", "training", "paused", "consensus", "serving", "left")


@dataclass(frozen=True)
class Status:
    """What a peer says of itself. ``tokens``, ``elapsed_s`` and ``step`` only grow."""

    incarnation: int
    counter: int
    state: str
    role: str = "worker"
    tokens: int = 0
    elapsed_s: float = 0.0
    step: int = 0
    rate: float = 0.0
    """Tokens per second, so that readers can extrapolate between renewals."""


@dataclass
class _Member:
    status: Status
    """The newest record that was read; rumours carry no state."""
    moved_at: float
    heard: tuple[int, int]
    """Newest (incarnation, counter) from records and rumours."""
    suspect_until: float = 0.0
    strikes: int = 0


class Membership:
    """The live view of one peer. All times are seconds on the caller's monotonic clock."""

    def __init__(self, me: str, renew_s: float) -> None:
        self.me = me
        self.renew_s = renew_s
        self._members: dict[str, _Member] = {}

    def observe(self, peer: str, status: Status, now: float) -> None:
        """A verified record of ``peer`` was read."""
        if peer == self.me:
            return
        known = self._members.get(peer)
        if known is None:
            self._members[peer] = _Member(status, now, _age(status))
            return
        if _age(status) <= _age(known.status):
            return
        if status.incarnation > known.status.incarnation:
            known.suspect_until, known.strikes = 0.0, 0
        known.status = _grown(known.status, status)
        # A signed record is a sign of life even where an unsigned rumour ran ahead of it.
        known.moved_at = now
        known.heard = max(known.heard, _age(status))

    def hear(self, rumours: Iterable[Rumour], now: float) -> None:
        """Somebody told us counters of peers that we know; unknown peers wait for their record."""
        for rumour in rumours:
            known = self._members.get(rumour.peer)
            age = (rumour.incarnation, rumour.counter)
            if known is None or known.status.state == "left" or age <= known.heard:
                continue
            work = replace(known.status, tokens=rumour.tokens, elapsed_s=rumour.elapsed_s)
            known.status = _grown(known.status, work)
            known.heard, known.moved_at = age, now

    def digest(self, mine: Status, now: float) -> tuple[Rumour, ...]:
        """Myself and the most recently moved others, bounded, for the next message."""
        fresh = [(p, m) for p, m in self._members.items() if self._live(m, now)]
        fresh.sort(key=lambda item: (-item[1].moved_at, item[0]))
        told = [_rumour(peer, m.heard, m.status) for peer, m in fresh[: MAX_RUMOURS - 1]]
        return (_rumour(self.me, _age(mine), mine), *told)

    def suspect(self, peer: str, now: float) -> None:
        """A stream to ``peer`` failed: leave it alone for a while, longer each time in a row."""
        member = self._members.get(peer)
        if member is not None:
            member.strikes += 1
            member.suspect_until = now + min(self.renew_s * 2.0 ** (member.strikes - 2), 60.0)

    def clear(self, peer: str) -> None:
        """A frame of ``peer`` arrived: whatever we suspected was wrong or is over."""
        member = self._members.get(peer)
        if member is not None:
            member.suspect_until, member.strikes = 0.0, 0

    def alive(
        self, now: float, states: Iterable[str] = STATES[:-1], *, suspects: bool = False
    ) -> list[str]:
        """Ids of live peers in one of ``states``, sorted; suspects only when asked for."""
        wanted = set(states)
        return sorted(
            peer
            for peer, m in list(self._members.items())
            if self._live(m, now)
            and (suspects or m.suspect_until <= now)
            and m.status.state in wanted
        )

    def is_dead(self, peer: str, now: float) -> bool:
        """No sign of life within three renewals, or it said that it left."""
        member = self._members.get(peer)
        return member is None or not self._live(member, now)

    def status(self, peer: str) -> Status | None:
        member = self._members.get(peer)
        return member.status if member else None

    def swarm_tokens(self, mine: int, now: float) -> int:
        """Tokens read by the whole run: published counters, extrapolated for live peers."""
        total = float(mine)
        for member in self._members.values():
            total += member.status.tokens
            if self._live(member, now) and member.status.state == "training":
                total += member.status.rate * (now - member.moved_at)
        return int(total)

    def swarm_elapsed_s(self, mine: float, now: float) -> float:
        """Seconds since the run's first inner step, from whoever has trained longest."""
        elapsed = mine
        for m in self._members.values():
            age = now - m.moved_at if self._live(m, now) and m.status.elapsed_s else 0.0
            elapsed = max(elapsed, m.status.elapsed_s + age)
        return elapsed

    def _live(self, member: _Member, now: float) -> bool:
        quiet = now - member.moved_at
        return member.status.state != "left" and quiet <= RENEWALS_UNTIL_DEAD * self.renew_s


def _rumour(peer: str, age: tuple[int, int], status: Status) -> Rumour:
    return Rumour(
        peer=peer,
        incarnation=age[0],
        counter=age[1],
        tokens=status.tokens,
        elapsed_s=status.elapsed_s,
    )


def _age(status: Status) -> tuple[int, int]:
    return (status.incarnation, status.counter)


def _grown(old: Status, new: Status) -> Status:
    """Counters only grow, also over a restart from an older checkpoint."""
    return replace(
        new,
        tokens=max(old.tokens, new.tokens),
        elapsed_s=max(old.elapsed_s, new.elapsed_s),
    )
