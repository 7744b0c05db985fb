"""A part of the membership: those with whom a meeting makes sense, because they hold the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from swarmnet.exchange.membership import STATES, Membership, Status
from swarmnet.wire.messages import Digest


class Among:
    """The live view of one peer, cut down to whom ``belongs`` names by their own words.

    Implements ``surroundings.Others``. News of everybody still goes in and out.
    """

    def __init__(self, members: Membership, belongs: Callable[[Status], bool]) -> None:
        self._members = members
        self._belongs = belongs

    def alive(
        self, now: float, states: Iterable[str] = STATES[:-1], *, suspects: bool = False
    ) -> list[str]:
        live = self._members.alive(now, states, suspects=suspects)
        return [peer for peer in live if self.status(peer) is not None]

    def status(self, peer: str) -> Status | None:
        """None for strangers and for those that do not belong here."""
        status = self._members.status(peer)
        return status if status is not None and self._belongs(status) else None

    def is_dead(self, peer: str, now: float) -> bool:
        return self._members.is_dead(peer, now)

    def hear(self, peer: str, digest: Digest | None, now: float) -> None:
        self._members.hear(peer, digest, now)

    def digest(self, mine: Status, now: float) -> Digest:
        return self._members.digest(mine, now)

    def suspect(self, peer: str, now: float, retry_s: float = 0.0) -> None:
        self._members.suspect(peer, now, retry_s)

    def clear(self, peer: str) -> None:
        self._members.clear(peer)
