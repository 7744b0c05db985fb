"""Where a joiner's first state comes from: who has one, and whom to ask first."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from peers.give import DONOR_STATES
from peers.halfway import Keep
from peers.link import Link
from peers.station import Station
from peers.take import Taken, Wish, anything, take_state
from swarmnet.errors import StopRequested, UnreachableError
from swarmnet.exchange.member import Status

WAIT_FOR_OTHERS_S = 20.0
"""A peer that was invited knows of somebody; until it sees anybody it must not begin alone."""
FOLDER = "joining"
NEARLY = 0.9
"""Donors with so large a share of the furthest one's steps are as good as that one."""
POLL_S = 0.02


class Donors:
    """The live workers of a run that have a state to give, as a joining worker sees them."""

    def __init__(self, station: Station, link: Link) -> None:
        self._station = station
        self._link = link

    def seen(self) -> list[str]:
        """Live and healed peers that have taken a step, best first."""
        members = self._link.membership
        live = self._link.workers(DONOR_STATES)
        known = {peer: status for peer in live if (status := members.status(peer)) is not None}
        return ranked(self._link.node.me, known)

    def await_anybody(self) -> None:
        """Raises UnreachableError when nobody of the run is seen; StopRequested."""
        deadline = time.monotonic() + WAIT_FOR_OTHERS_S
        while not self._link.membership.alive(time.monotonic()):
            if time.monotonic() > deadline:
                raise UnreachableError("connected, but no record of any other peer can be read")
            if self._station.stop.wait(POLL_S):
                raise StopRequested(f"stopped by {self._station.stop.reason}")

    def fetch(
        self, tensors: Mapping[str, Tensor], check: Callable[[Mapping[str, Any]], None] = anything
    ) -> Taken:
        """A state out of what several donors give, written into ``tensors``.

        What these hold already, from an older state of this run, is not sent again, nor what came
        before this process was started anew. ``check`` raises PayloadError when a donor's numbers
        are not wanted.

        Raises:
            UnreachableError: nobody gives one. StopRequested: told to leave meanwhile.
        """
        peer, log = self._station.peer, self._station.log
        wish = Wish(self.seen, peer.donor_s, check, keep=self._keep())
        return self._station.run(take_state(self._link.node, tensors, wish, log.emit))

    def forget(self) -> None:
        """There is a whole state now: what came of one is not needed any more."""
        shutil.rmtree(self._station.out / FOLDER, ignore_errors=True)

    def _keep(self) -> Keep | None:
        """Where columns are kept; nowhere while it is not known how far the donors are."""
        link = self._link
        known = map(link.membership.status, link.workers(DONOR_STATES))
        elapsed = [status.elapsed_s for status in known if status is not None]
        if not elapsed:
            return None
        folder, stale_s = self._station.out / FOLDER, self._station.peer.stale_s
        return Keep(folder, link.run.fingerprint, max(elapsed), stale_s)


def ranked(me: str, known: Mapping[str, Status]) -> list[str]:
    """Donors in the order in which to ask them.

    Those about as far as the furthest come first, in an order of this joiner's own, so that many
    joiners do not all choose the same one; then the others, the furthest first.
    """
    steps = {peer: status.step for peer, status in known.items() if status.step > 0}
    enough = NEARLY * max(steps.values(), default=0)
    near = sorted((p for p in steps if steps[p] >= enough), key=lambda p: _draw(me, p))
    return near + sorted((p for p in steps if steps[p] < enough), key=lambda p: (-steps[p], p))


def _draw(me: str, peer: str) -> bytes:
    return hashlib.sha256(f"{me} {peer}".encode()).digest()
