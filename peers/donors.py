"""Where a joiner's first state comes from: who has one, and asking them until one is sound."""

from __future__ import annotations

import time
from collections.abc import Callable

from peers.give import ask_state
from peers.link import Link
from peers.portrait import Portrait
from peers.station import Station
from swarmnet.errors import LinkError, PeerFault, StopRequested, UnreachableError

DONOR_STATES = ("training", "paused", "consensus", "serving")
WAIT_FOR_OTHERS_S = 20.0
"""A peer that was invited knows of somebody; until it sees anybody it must not begin alone."""
TRIES = 5
"""Rounds of asking everybody for state, before a joiner gives up on a swarm that trains."""
POLL_S = 0.02


class Donors:
    """The live workers of a run that have a state to give, as a joining worker sees them."""

    def __init__(self, station: Station, link: Link) -> None:
        self._station = station
        self._link = link

    def seen(self) -> list[str]:
        """Live peers that have taken a step, the furthest first."""
        members = self._link.membership
        live = self._link.workers(DONOR_STATES)
        steps = {peer: status.step for peer in live if (status := members.status(peer))}
        return sorted((p for p in steps if steps[p] > 0), key=lambda p: (-steps[p], p))

    def await_anybody(self) -> None:
        """Raises UnreachableError when nobody of the run is seen; StopRequested."""
        deadline = time.monotonic() + WAIT_FOR_OTHERS_S
        while not self._link.membership.alive(time.monotonic()):
            if time.monotonic() > deadline:
                raise UnreachableError("connected, but no record of any other peer can be read")
            self._pause(POLL_S)

    def fetch(self, max_bytes: int, adopt: Callable[[Portrait], None]) -> tuple[str, Portrait]:
        """Ask one after the other until ``adopt`` takes what is given; who gave it, and what.

        Raises:
            UnreachableError: nobody gives a sound state. StopRequested: told to leave meanwhile.
        """
        problem: Exception | None = None
        for _ in range(TRIES):
            for donor in self.seen():
                try:
                    asked = ask_state(self._link.node, donor, "state", max_bytes)
                    portrait = self._station.run(asked)
                    adopt(portrait)
                except (LinkError, PeerFault) as error:
                    problem = error
                else:
                    return donor, portrait
            self._pause(1.0)
        raise UnreachableError(f"nobody gives a sound state: {problem}") from problem

    def _pause(self, seconds: float) -> None:
        if self._station.stop.wait(seconds):
            raise StopRequested(f"stopped by {self._station.stop.reason}")
