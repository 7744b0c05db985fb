"""What the swarm needs most: a worker where models are whole, else a stage peer, else a trainer.

A visitor looks before it becomes a member: it reads the run file and the phone book, and leaves.
"""

from __future__ import annotations

import time

from peers.link import Link
from peers.station import Station
from peers.visit import visiting
from swarmnet.config import RunFile
from swarmnet.wire.invite import Invite

PEERS_PER_STAGE = 2
"""Below that a stage dies with its next peer, so nothing is needed more."""
TRAINERS_PER_STAGES = 8
"""One trainer keeps about so many stage peers busy."""


def most_needed(station: Station, invite: Invite, given: bytes | None) -> str:
    """``worker``, ``stage`` or ``trainer``. Raises UnreachableError, RunMismatchError."""
    return station.run(_look(station, invite, given))


async def _look(station: Station, invite: Invite, given: bytes | None) -> str:
    async with visiting(station, invite, "visitor", given) as link:
        return _choose(link, link.run) if link.run.config.pipeline.stages > 1 else "worker"


def _choose(link: Link, run: RunFile) -> str:
    serving = link.stages(("syncing", "training", "consensus", "serving"))
    counts = [len(serving.get(stage, ())) for stage in range(run.config.pipeline.stages)]
    if min(counts) < PEERS_PER_STAGE:
        return "stage"
    members = link.membership
    live = [members.status(peer) for peer in members.alive(time.monotonic())]
    trainers = sum(status is not None and status.role == "trainer" for status in live)
    return "trainer" if trainers * TRAINERS_PER_STAGES < sum(counts) else "stage"
