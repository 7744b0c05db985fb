"""A meeting of more than two: its rules, and the machine of the one who decides.

Rules
-----
1. The *leader* CALLs peers; each answers JOIN or DECLINE. When enough have joined, or at a
   deadline, ROSTER gives everybody a seat. The leader is a member like the others.
2. Each member sends its contribution along a *lane*, a stream of its own to every member that
   needs it. Up to four exchange directly: all parts to all. Beyond, part k goes to the member in
   seat k mod g, its owner.
3. GOT tells the leader whose contributions a member holds whole. When all hold what they will
   ever hold, or at the deadline, the leader DECIDEs who counts: the largest set it finds in
   which everybody holds everybody's. The others are removed from the denominator. Every decision
   has a number of its own.
4. The members of the set form their corrections over exactly this set. In a butterfly the
   owners fuse their parts and send the means back along the lanes; all adopt the same bytes. A
   part whose owner was removed stays uncorrected for everybody; where that must not be
   (``Seating.whole``) the meeting comes to nothing and the rest hold another one.
5. HAVE says: I hold all that this decision needs and it is sound. When every member of the set
   has said so, the leader commits, applies, and tells COMMIT. Nobody else ever decides.
6. Whoever is lost before that, or finds a contribution unsound, makes the leader decide anew over
   those who are left. The decision before is dropped then.
7. Contributions may claim samples (``claims``). One whose claims collide counts nothing: it weighs
   zero, and its peer adopts the result like the others.
8. A member that said HAVE and heard no more keeps its correction as *pending* and asks: the
   leader, whose ledger answers, or the other members when the leader is gone for good. By being
   asked, an open decision is dropped.

Corrections of the set sum to zero, or its means are the same, because all of the set apply them or
none does. A machine takes a frame or a fact and returns what to send, in order; times are the
caller's seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from swarmnet.errors import MessageError
from swarmnet.exchange import claims
from swarmnet.exchange.ledger import Decisions
from swarmnet.exchange.pair import End
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Commit, Decide, Got, Have, Roster

DIRECT = 4
"""Up to here sending everything to everybody costs less than a second trip."""
MAX_DECISIONS = 4
SLACK = 4


@dataclass(frozen=True)
class Seating:
    """Who sits where, and which parts each member needs of every other's contribution."""

    members: tuple[str, ...]
    parts: int
    whole: bool = False
    """Means of all parts or of none: no decision may leave out the owner of a part, or weigh
    nothing."""

    @property
    def direct(self) -> bool:
        return len(self.members) <= DIRECT

    def needs(self, peer: str) -> range:
        """Parts that are sent to ``peer``; in a butterfly it fuses them for all."""
        if self.direct:
            return range(self.parts)
        return range(self.members.index(peer), self.parts, len(self.members))

    def serves(self, chosen: Sequence[str]) -> bool:
        """What these members hold together is a result."""
        owners = () if self.direct else self.members[: self.parts]
        return not self.whole or set(owners).issubset(chosen)

    def at(self, seats: Sequence[int]) -> tuple[str, ...]:
        """Raises MessageError for a seat that nobody has, or that is out of order."""
        if list(seats) != sorted(set(seats)) or max(seats, default=0) >= len(self.members):
            raise MessageError(f"no such seats: {seats}")
        return tuple(self.members[seat] for seat in seats)


@dataclass(frozen=True)
class To:
    """Send this frame to this member (it may be the leader itself)."""

    peer: str
    frame: Frame


def _nothing(sample: int) -> bool:
    return False


@dataclass(frozen=True)
class Book:
    """How the leader's decisions are numbered and remembered."""

    me: str
    decisions: Decisions
    number: Callable[[], int]
    committed: Callable[[int], bool] = _nothing
    """Whether a sample was counted by an earlier commit."""


class GroupLeader:
    """Collects what the members hold, decides who counts, commits once for all."""

    def __init__(self, seating: Seating, book: Book, patience_s: float, now: float) -> None:
        """``patience_s``: what stragglers get on top of the time that the others took."""
        self.seating = seating
        self.end: End | None = None
        self.number: int | None = None
        self.chosen: tuple[str, ...] = ()
        self.removed: dict[str, str] = {}
        """Who does not count, and why."""
        self.deadline: float | None = None
        self._book = book
        self._patience_s = patience_s
        self._since = now
        self._holds = {peer: {peer} for peer in seating.members}
        self._works: dict[str, int] = {}
        self._claims: dict[str, claims.Ids] = {}
        self._done: set[str] = set()
        self._have: set[str] = set()
        self._decisions = 0
        self._gone: set[str] = set()
        self._hurried = False

    def start(self, round_: int) -> list[To]:
        roster = Roster(round=round_, members=self.seating.members)
        return [To(peer, roster.frame()) for peer in self.seating.members]

    def on_frame(self, peer: str, frame: Frame, now: float) -> list[To]:
        """Raises MessageError at what no member says to its leader."""
        if frame.kind is Kind.GOT:
            got = Got.parse(frame)
            self._holds[peer] = {peer, *self.seating.at(got.holds)}
            self._works[peer] = got.work
            if peer not in self._claims:
                self._claims[peer] = claims.unpack(got.claims)
            if got.done:
                self._done.add(peer)
        elif frame.kind is Kind.HAVE:
            if Have.parse(frame).round == self.number:  # else of a decision that is no more
                self._have.add(peer)
        else:
            raise MessageError(f"{frame.kind.name} is not expected by the leader")
        return self._proceed(now)

    def gone(self, peer: str, reason: str, now: float) -> list[To]:
        """Its stream is lost, or it asks about a decision because it lost the stream."""
        self._gone.add(peer)
        if self.end is None:
            self.removed.setdefault(peer, reason)
        return self._proceed(now)

    def tick(self, now: float) -> list[To]:
        """The clock reached ``deadline``."""
        if self.end is not None or self.deadline is None or now < self.deadline:
            return []
        if self.number is not None:
            for peer in set(self.chosen) - self._have:
                self.removed[peer] = "late with its word that all is sound"
        return self._decide(now)

    def cancel(self) -> None:
        """This process leaves: nothing may be committed any more."""
        if self.end is None:
            self._drop()
            self.end = End.FAILED

    def _proceed(self, now: float) -> list[To]:
        if self.end is not None:
            return []
        if self.number is None:
            left = self._left()
            if all(peer in self._done or self._holds[peer].issuperset(left) for peer in left):
                return self._decide(now)
            some = any(self.seating.needs(peer) for peer in self._done)
            self._hurry(some or 3 * self._arrived() >= self._expected(), now)
            return []
        if not all(self._counts(peer) for peer in self.chosen):
            return self._decide(now)
        if self._have.issuperset(self.chosen):
            return self._commit(now)
        self._hurry(2 * len(self._have) >= len(self.chosen), now)
        return []

    def _decide(self, now: float) -> list[To]:
        self._drop()
        left = self._left()
        self.chosen = agreeing(left, self._holds)
        self._decisions += 1
        if len(self.chosen) < 2 or not self.seating.serves(self.chosen):
            self.chosen = ()
        works, claimed = self._weigh()
        weightless = self.seating.whole and not any(works)
        if not self.chosen or weightless or self._decisions > MAX_DECISIONS:
            self.chosen = works = claimed = ()
            self.end = End.FAILED
        for peer in left:
            if peer not in self.chosen:
                self.removed[peer] = "contributions did not pass between it and others"
        self.number = self._book.number()
        self._book.decisions.begin(self._book.me, self.number)
        if not self.chosen:
            self._drop()
        # Means take about as long as contributions did; nobody may keep the others for ever.
        self.deadline = now + SLACK * (now - self._since + self._patience_s)
        self._since, self._hurried = now, False
        self._have.clear()
        decide = Decide(
            number=self.number,
            seats=tuple(self.seating.members.index(peer) for peer in self.chosen),
            works=works,
            claims=claimed,
        )
        return [To(peer, decide.frame()) for peer in self.seating.members if peer not in self._gone]

    def _weigh(self) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        """Works and claims of the chosen; nothing of those whose claims collide."""
        if not any(self._claims[peer] for peer in self.chosen):
            return tuple(self._works[peer] for peer in self.chosen), ()
        refused = claims.colliding(self.chosen, self._claims, self._book.committed)
        works = tuple(0 if peer in refused else self._works[peer] for peer in self.chosen)
        return works, tuple(
            claims.pack(() if peer in refused else self._claims[peer]) for peer in self.chosen
        )

    def _commit(self, now: float) -> list[To]:
        assert self.number is not None
        if not self._book.decisions.commit(self._book.me, self.number):
            return self._decide(now)  # somebody was told otherwise
        self.end = End.APPLIED
        commit = Commit(number=self.number)
        return [To(peer, commit.frame()) for peer in self.chosen]

    def _drop(self) -> None:
        if self.number is not None:
            self._book.decisions.drop(self._book.me, self.number)

    def _left(self) -> list[str]:
        return [peer for peer in self.seating.members if peer not in self.removed]

    def _counts(self, peer: str) -> bool:
        return peer not in self.removed and self._holds[peer].issuperset(self.chosen)

    def _arrived(self) -> int:
        return sum(len(held) - 1 for held in self._holds.values())

    def _expected(self) -> int:
        return len(self._holds) * (len(self._holds) - 1)

    def _hurry(self, many: bool, now: float) -> None:
        """Many are ready: the others get as long again, and some patience."""
        if many and not self._hurried:
            self._hurried = True
            soon = now + (now - self._since) + self._patience_s
            self.deadline = soon if self.deadline is None else min(self.deadline, soon)


def agreeing(members: Sequence[str], holds: Mapping[str, set[str]]) -> tuple[str, ...]:
    """The largest set, found greedily, in which everybody holds everybody's contribution.

    Whoever misses or is missed most goes first; of equals the last in the order.
    """
    left = list(members)

    def misses(peer: str) -> int:
        return sum((other not in holds[peer]) + (peer not in holds[other]) for other in left)

    while left:
        worst = max(reversed(left), key=misses)
        if misses(worst) == 0:
            break
        left.remove(worst)
    return tuple(left)
