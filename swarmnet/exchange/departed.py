"""Peers that have been dead for so long that only a line is kept: their age and their work."""

from __future__ import annotations

from collections import OrderedDict

from swarmnet.exchange.member import Member, Status, grown

MAX_LINES = 8192


class Departed:
    """Whom the live view has forgotten. Bounded: above ``MAX_LINES`` the oldest keep only a sum.

    A peer whose line is gone and that comes back counts its earlier tokens twice; that needs more
    departures than lines between its two lives.
    """

    def __init__(self) -> None:
        self.tokens = 0
        """Work of all of them: what was learned is not lost with who learned it."""
        self.elapsed_s = 0.0
        self.committed = 0
        self._lines: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def bury(self, peer: str, member: Member) -> None:
        status = member.status
        self._lines[peer] = (status.incarnation, member.heard, status.tokens)
        self.tokens += status.tokens
        self.elapsed_s = max(self.elapsed_s, status.elapsed_s)
        self.committed = max(self.committed, status.committed)
        if len(self._lines) > MAX_LINES:
            self._lines.popitem(last=False)

    def is_old(self, peer: str, age: tuple[int, int]) -> bool:
        """Whether ``age`` was already known when the peer was forgotten."""
        line = self._lines.get(peer)
        return line is not None and age <= line[:2]

    def rise(self, peer: str, status: Status) -> Status:
        """A new word of ``peer``: it is no longer counted here, and its work did not shrink."""
        line = self._lines.pop(peer, None)
        if line is None:
            return status
        self.tokens -= line[2]
        return grown(Status(*line[:2], state="left", tokens=line[2]), status)
