"""How a worker leaves: the meeting under way ends, its newest work goes to a neighbour.

The training thread is here; meetings and the farewell are in the network thread. ``leave_s`` of the
peer file bounds all of it: a share of what is left of it goes to each act.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from peers.station import LAST_S, Station
from swarmnet.events import FarewellSaid
from swarmnet.exchange.desk import Snapshot
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.farewell import Said
from swarmnet.exchange.subject import Legacy

POLL_S = 0.02
SETTLE_S = 2.0
"""A meeting that lasts longer ends like one that was cut."""
LEAST_S = 0.5
"""For a farewell, however late it is."""
CANCEL_S = 1.0


def settle(gossip: Gossip, boundary: Callable[[], None], seconds: float = SETTLE_S) -> None:
    """No new meetings; let the one under way end, and apply what was decided."""
    gossip.paused = True
    deadline = time.monotonic() + seconds
    while not gossip.free and time.monotonic() < deadline:
        boundary()
        time.sleep(POLL_S)
    boundary()


@dataclass(frozen=True)
class Leaving:
    """A worker that was told to leave, between two steps. ``boundary`` applies what is due."""

    station: Station
    gossip: Gossip
    legacy: Legacy
    boundary: Callable[[], None]

    def hand_over(self, steps: int, *, worked: bool) -> FarewellSaid:
        """Everything up to the checkpoint. ``worked``: in this life, so that there is own work."""
        net, gossip = self.station.net, self.gossip
        settle(gossip, self.boundary, min(SETTLE_S, 0.4 * self.station.left_s()))
        try:
            net.submit(gossip.retire()).result(CANCEL_S)
        except TimeoutError:  # what it shares might be handed over a second time
            return told(self.station, "nobody", Said("nobody", reason="a meeting did not end"))
        self.boundary()
        vector = self.legacy.capture() if worked or gossip.farewells.heir_once else None
        if vector is None:
            return told(self.station, "nothing", Said("nobody"))
        until = time.monotonic() + max(LEAST_S, self.station.left_s() - LAST_S)
        said = net.run(gossip.farewells.say(Snapshot(steps, vector), until))
        if said.gone is not None:
            self.legacy.part_with(said.gone)
        return told(self.station, said.outcome, said)


def told(station: Station, outcome: str, said: Said) -> FarewellSaid:
    return FarewellSaid(
        outcome=outcome,
        to=said.heir,
        bytes=said.bytes_sent,
        seconds=time.monotonic() - station.stop.at,
        reason=said.reason,
        distance=said.distance,
    )
