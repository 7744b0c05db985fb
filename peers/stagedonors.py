"""Where the state of a stage comes from: mates' copies, and the steps that they took meanwhile."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from peers.link import Link
from peers.stageside import StageSide
from peers.station import Station
from peers.take import Wish, take_state, take_step
from swarmnet.errors import LinkError, PeerFault, UnreachableError
from swarmnet.pipeline.steplog import Logged

PATIENCE_S = 20.0
"""While no part of a state comes, a mate may have died: what else there is, is looked at again."""


@dataclass(frozen=True)
class Found:
    """How a peer came to its state: who gave of it, how many bytes, and steps by themselves."""

    donors: tuple[str, ...] = ()
    nbytes: int = 0
    steps: int = 0

    def __add__(self, more: Found) -> Found:
        donors = tuple(dict.fromkeys(self.donors + more.donors))
        return Found(donors, self.nbytes + more.nbytes, self.steps + more.steps)


class StageDonors:
    """The mates of a stage peer, as it sees them while it has no part in the stage's steps."""

    def __init__(self, station: Station, link: Link, *, alike: bool) -> None:
        """``alike``: all peers of the stage hold the same bits."""
        self._station = station
        self._link = link
        self._alike = alike

    async def fetch(self, side: StageSide) -> Found | None:
        """The steps since the own state, else a whole one and the steps since; then it is served.

        None: nobody gives it. A part of a state is kept for the next try.
        """
        found = await self._follow(side)
        try:
            if not found.steps:
                found = await self._copy(side) + await self._follow(side)
        except (UnreachableError, PeerFault):
            return None
        side.go_on()
        return found

    async def _copy(self, side: StageSide) -> Found:
        """Of one version where mates are one. Raises UnreachableError, PayloadError."""
        wish = Wish(side.donors, PATIENCE_S, side.check, alike=self._alike, waits=False)
        log = self._station.log
        taken = await take_state(self._link.node, side.draft(), wish, log.emit)
        await side.place(taken.portrait, None)
        return Found(taken.donors, taken.nbytes)

    async def _follow(self, side: StageSide) -> Found:
        """Take the steps that mates took since the state that is here.

        Until none of them keeps the next one: it was not taken yet, or nobody knew that somebody
        would need it.
        """
        found = Found()
        while self._alike and side.placed:
            try:
                donor, logged = await self._next_step(side)
                if logged is None:
                    break
                await side.served.follow(logged)
            except PeerFault:  # another past than mine: a copy makes it one
                break
            found += Found((donor,), 4 * side.parameters, 1)
        return found

    async def _next_step(self, side: StageSide) -> tuple[str, Logged | None]:
        """From whoever of the mates has it. Raises PeerFault: what one gave is no step."""
        step = side.served.past.step + 1
        for donor in side.donors():
            with suppress(LinkError):
                return donor, await take_step(self._link.node, donor, step, side.parameters)
        return "", None
