"""Where the state of a stage comes from: mates' copies, and the steps that they took meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from peers.link import Link
from peers.stageside import StageSide
from peers.station import Station
from peers.take import Wish, take_state, take_step
from swarmnet.errors import DonorBusy, LinkError, PeerFault, UnreachableError
from swarmnet.events import StateAwaited

PATIENCE_S = 20.0
"""While no part of a state comes, a mate may have died: what else there is, is looked at again."""
TRIES = 8
"""How often a mate that is busy is asked for one step."""
SAY_S = 1.0


@dataclass(frozen=True)
class Found:
    """How a peer came to its state: who gave of it, how many bytes, and steps by themselves."""

    donors: tuple[str, ...] = ()
    nbytes: int = 0
    steps: int = 0

    def __add__(self, more: Found) -> Found:
        others = (donor for donor in self.donors if donor not in more.donors)
        donors = (*others, *more.donors)
        return Found(donors, self.nbytes + more.nbytes, self.steps + more.steps)


class StageDonors:
    """The mates of a stage peer, as it sees them while it has no part in the stage's steps."""

    def __init__(self, station: Station, link: Link, *, alike: bool) -> None:
        """``alike``: all peers of the stage hold the same bits."""
        self._station = station
        self._link = link
        self.alike = alike

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
        await side.go_on()
        return found

    async def _copy(self, side: StageSide) -> Found:
        """Of one version where mates are one. Raises UnreachableError, PayloadError."""
        wish = Wish(side.donors, PATIENCE_S, side.check, alike=self.alike, waits=False)
        emit = self._station.log.emit
        taken = await take_state(self._link.node, side.draft(), wish, emit)
        await side.place(taken.portrait, None)
        return Found(taken.donors, taken.nbytes)

    async def _follow(self, side: StageSide) -> Found:
        """Take the steps that mates took since the state that is here.

        Until none of them keeps the next one: it was not taken yet, or nobody knew that somebody
        would need it.
        """
        found, began = Found(), time.monotonic()
        said_at, unfit = began, set[str]()
        while self.alike and side.placed:
            # Whoever gave the last one has the next one too; others may keep nothing.
            mates = [peer for peer in side.donors() if peer not in unfit]
            mates.sort(key=lambda peer: peer not in found.donors[-1:])
            donor = await self._step_from(mates, side, unfit)
            if donor is None:
                break
            found += Found((donor,), 4 * side.parameters, 1)
            if (now := time.monotonic()) > said_at + SAY_S:
                said_at = now
                reason = f"following the stage's steps, {found.steps} so far"
                self._station.log.emit(StateAwaited(0, 0, 1, now - began, reason))
        return found

    async def _step_from(
        self, mates: Sequence[str], side: StageSide, unfit: set[str]
    ) -> str | None:
        """Take the next step from the first of ``mates`` that has it; None: nobody has.

        Who sends what is no step, or not the next one, is ``unfit``: of another past than mine, as
        far as I can know. If all are, a copy decides.
        """
        step = side.served.past.step + 1
        for attempt in range(TRIES):
            busy_s = 0.0
            for mate in mates:
                try:
                    logged = await take_step(self._link.node, mate, step, side.parameters)
                    await side.served.follow(logged)
                except DonorBusy as busy:
                    busy_s = max(busy_s, busy.retry_s)
                except LinkError:
                    continue
                except PeerFault:
                    unfit.add(mate)
                else:
                    return mate
            if not busy_s or attempt == TRIES - 1:
                break
            await asyncio.sleep(busy_s)
        return None
