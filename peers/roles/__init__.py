"""What a process is to the swarm: each file is one role, chosen by its name."""

from __future__ import annotations

from peers.station import Station
from swarmnet.wire.invite import Invite


def enter(
    role: str, station: Station, invite: Invite, given: bytes | None, stages: str | None
) -> int:
    """Live in this role until it ends; its exit code. Raises SwarmnetError.

    ``auto`` asks the swarm what it needs most. ``stages``: a stage peer's, "1", "0,2" or "all".
    """
    station.stop.at_once = True  # what a role imports takes seconds
    if role == "auto":
        from peers.roles.auto import most_needed

        try:
            role = most_needed(station, invite, given)
        except BaseException:
            station.close()
            raise
    if role == "worker":
        from peers.roles.worker import work

        return work(station, invite, given)
    if role == "trainer":
        from peers.roles.trainer import train

        return train(station, invite, given)
    from peers.roles.stages import serve_stages

    return serve_stages(station, invite, given, stages)
