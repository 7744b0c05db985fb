"""The machine of one member of a group: what it holds, what counts for it, what it may apply.

The rules are those of ``group``. Frames of the leader come from the control stream, parts and
means from lanes; which peer a lane belongs to is the transport's word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from swarmnet.errors import MessageError, PayloadError
from swarmnet.exchange import claims
from swarmnet.exchange.group import Seating
from swarmnet.exchange.pair import End
from swarmnet.wire import Frame, Kind
from swarmnet.wire.messages import Commit, Decide, Got, Have


class Task(Enum):
    """Work for the shell."""

    BLEND = auto()
    """A decision fell: form the corrections over its set, then call ``blended``."""
    FINISH = auto()
    """All parts are adopted: finish the correction and check it, then call ``finished``."""


@dataclass(frozen=True)
class Say:
    """Send this frame to the leader."""

    frame: Frame


Act = Task | Say


class GroupMember:
    """One seat. ``decisions`` is this peer's memory of group rounds, its own and others'."""

    def __init__(
        self,
        me: str,
        seating: Seating,
        work: int,
        size_of: Callable[[int], int],
        mine: claims.Ids = (),
    ) -> None:
        """``size_of``: payload bytes of a part. ``mine``: the samples that I claim."""
        self.seating = seating
        self.leader = seating.members[0]
        self.end: End | None = None
        self.reason = ""
        self.number: int | None = None
        """The decision that stands."""
        self.works: dict[str, int] = {}
        """Its members, me included, and the inner steps behind each contribution."""
        self.claims: dict[str, claims.Ids] = {}
        """The samples behind each contribution that weighs."""
        self.superseded: list[int] = []
        """Decisions of this leader that can never be committed."""
        self._me = me
        self._work = work
        self._mine = mine
        self._untold = mine
        self._size_of = size_of
        self._needs = seating.needs(me)
        self._failed: set[str] = set()
        self._laneless: set[str] = set()
        self._owing: set[str] = set()
        self._own_done = False
        self._said_have = False
        self.contributions: dict[str, list[memoryview]] = {
            peer: [] for peer in seating.members if peer != me
        }

    def start(self) -> list[Act]:
        return [self._got()]

    def on_frame(self, frame: Frame) -> list[Act]:
        """A word of the leader. Raises MessageError at what it cannot say now."""
        if self.end is not None:
            return []
        if frame.kind is Kind.DECIDE:
            return self._on_decide(Decide.parse(frame))
        if frame.kind is Kind.COMMIT:
            if not self._said_have or Commit.parse(frame).number != self.number:
                raise MessageError("COMMIT without everybody's HAVE")
            self.end = End.APPLIED
            return []
        raise MessageError(f"{frame.kind.name} is not expected by a member")

    # ---- contributions ----------------------------------------------------------------------

    def whole(self, peer: str) -> bool:
        """All parts that I need of this peer have arrived."""
        return len(self.contributions[peer]) == len(self._needs)

    def on_part(self, peer: str, body: memoryview) -> list[Act]:
        """The next part of a member's contribution. Raises PayloadError for a wrong size."""
        parts = self.contributions[peer]
        if self.whole(peer):
            raise PayloadError("more parts than agreed on")
        if len(body) != self._size_of(self._needs[len(parts)]):
            raise PayloadError(f"a part of {len(body)} bytes, not of the size agreed on")
        parts.append(body)
        return [self._got()] if self.whole(peer) and self.end is None else []

    def lane_lost(self, peer: str) -> list[Act]:
        """No more parts of this member will come."""
        return [] if self.whole(peer) else self.without(peer)

    # ---- corrections ------------------------------------------------------------------------

    def owes(self, peer: str) -> bool:
        """Means of this member's parts are missing for the decision that stands."""
        return self.end is None and peer in self._owing

    def mean(self, peer: str, index: int, body: memoryview) -> int:
        """Which part this is. Raises PayloadError for a wrong one."""
        owned = self.seating.needs(peer)
        if index >= len(owned) or len(body) != self._size_of(owned[index]):
            raise PayloadError("a mean that was not agreed on")
        return owned[index]

    def adopted(self, peer: str, number: int) -> list[Act]:
        """All means of this member's parts are adopted."""
        if number == self.number:
            self._owing.discard(peer)
        return self._maybe_finish(number)

    def means_lost(self, peer: str) -> list[Act]:
        """The lane to this member is gone: its means will not come."""
        if self.seating.direct or not self.seating.needs(peer):
            return []
        self._laneless.add(peer)  # what it gave for this decision it cannot give for the next
        settled = peer in self.works and peer not in self._owing
        return [] if settled else self.without(peer)

    def blended(self, number: int) -> list[Act]:
        """My own share of the arithmetic is done."""
        if number == self.number:
            self._own_done = True
        return self._maybe_finish(number)

    def finished(self, number: int) -> list[Act]:
        """The correction is whole and sound: from here on the leader may count on me."""
        if self.end is not None or number != self.number or not self._may_finish():
            return []
        self._said_have = True
        return [Say(Have(round=number).frame())]

    def without(self, peer: str) -> list[Act]:
        """What this member sent, or will not send, cannot count for me."""
        if self.end is not None or peer in self._failed:
            return []
        self._failed.add(peer)
        return [self._got()]

    def lost(self, reason: str) -> None:
        """The leader is gone, or I leave. Nothing changes an end."""
        if self.end is None:
            self.reason = reason
            if not self._said_have and self.number is not None and self._me in self.works:
                self.superseded.append(self.number)  # it needs my word, which I never give
            led_by_me = self.leader == self._me  # what I did not commit I know to have failed
            self.end = End.PENDING if self._said_have and not led_by_me else End.FAILED

    # ---- inside -----------------------------------------------------------------------------

    def _holds(self) -> set[str]:
        whole = {peer for peer in self.contributions if self.whole(peer)}
        return {self._me, *whole - self._failed}

    def _got(self) -> Say:
        members, holds = self.seating.members, self._holds()
        got = Got(
            holds=tuple(seat for seat, peer in enumerate(members) if peer in holds),
            work=self._work,
            done=holds.union(self._failed).issuperset(members),
            claims=claims.pack(self._untold),
        )
        self._untold = ()
        return Say(got.frame())

    def _on_decide(self, decide: Decide) -> list[Act]:
        chosen = self.seating.at(decide.seats)
        if len(chosen) != len(decide.works) or decide.number <= (self.number or 0):
            raise MessageError("DECIDE that cannot be")
        claimed = self._read_claims(chosen, decide)
        if self.number is not None:
            self.superseded.append(self.number)
        self.number = decide.number
        self._said_have = self._own_done = False
        self.works = dict(zip(chosen, decide.works, strict=True))
        self.claims = claimed
        if self._me not in chosen:
            self.end = End.FAILED
            self.reason = "removed by the leader" if chosen else "the leader gave up"
            return []
        self._failed |= self._laneless
        if not self._holds().issuperset(chosen):
            return [self._got()]  # it does not know yet that somebody failed
        self._owing = {
            peer
            for peer in chosen
            if peer != self._me and not self.seating.direct and self.seating.needs(peer)
        }
        return [Task.BLEND]

    def _read_claims(self, chosen: tuple[str, ...], decide: Decide) -> dict[str, claims.Ids]:
        packed = decide.claims or (b"",) * len(chosen)
        if len(packed) != len(chosen):
            raise MessageError("DECIDE with the claims of others")
        read = {peer: claims.unpack(one) for peer, one in zip(chosen, packed, strict=True)}
        together = sum(map(len, read.values()))
        if len(set[int]().union(*read.values())) < together:
            raise MessageError("DECIDE that counts a sample twice")
        if self._me in read and read[self._me] != self._mine:
            work = decide.works[chosen.index(self._me)]
            if read[self._me] or work:  # else I am refused, and adopt what the others have
                raise MessageError("DECIDE with other claims than mine")
        return read

    def _may_finish(self) -> bool:
        holds = self._holds().issuperset(self.works)
        return self._own_done and not self._owing and holds and not self._said_have

    def _maybe_finish(self, number: int) -> list[Act]:
        fits = self.end is None and number == self.number
        return [Task.FINISH] if fits and self._may_finish() else []
