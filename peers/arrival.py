"""A worker's look around before it has a state: who is healthy, who is not yet, what was there."""

from __future__ import annotations

import logging
import time

from peers.donors import Donors
from peers.firststate import First, Sight, choose
from peers.give import DONOR_STATES
from peers.link import Link
from peers.station import Station
from swarmnet.errors import StopRequested, UnreachableError

POLL_S = 0.1
STALE_CHECKPOINTS = 2
"""A checkpoint is as old as this many intervals without anybody's fault."""
_log = logging.getLogger(__name__)


class Arrival:
    """Decides where the first state comes from. ``own_s``: training time behind the checkpoint."""

    def __init__(self, station: Station, link: Link, own_s: float | None) -> None:
        self._station = station
        self._link = link
        self._own_s = own_s

    def settle(self) -> First:
        """``OWN``, ``DONOR`` or ``SEED``, as soon as it is clear which.

        Raises:
            UnreachableError: nobody of the swarm is seen, or the run was trained and nobody who
                holds a state comes. StopRequested: told to leave meanwhile.
        """
        peer, began, told = self._station.peer, time.monotonic(), False
        stale_s = max(peer.stale_s, STALE_CHECKPOINTS * peer.checkpoint_s)
        Donors(self._station, self._link).await_anybody()
        while True:
            waited_s = time.monotonic() - began
            first = choose(self.sight(), waited_s, stale_s, peer.donor_s)
            if first is First.LOST:
                raise UnreachableError(
                    "the run was trained and nobody gives its state: start a peer that has a "
                    "checkpoint; to begin anew, start the bootstrap with another --out"
                )
            if first is not First.WAIT:
                return first
            if not told:
                told = True
                _log.warning("waiting for peers that are further in this run")
            if self._station.stop.wait(POLL_S):
                raise StopRequested(f"stopped by {self._station.stop.reason}")

    def sight(self) -> Sight:
        link = self._link
        bootstraps = link.of_role("bootstrap")
        return Sight(
            self._own_s,
            healthy=self._furthest(link.workers(DONOR_STATES)),
            healing=self._furthest(link.workers(("syncing",))),
            remembered=self._furthest(bootstraps),
        )

    def _furthest(self, peers: list[str]) -> float | None:
        """Training time behind the furthest state among ``peers``; None where nobody has begun."""
        known = [self._link.membership.status(peer) for peer in peers]
        return max((s.elapsed_s for s in known if s is not None and s.step > 0), default=None)
