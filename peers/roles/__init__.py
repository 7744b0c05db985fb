"""What a process is to the swarm: each file is one role, chosen by its name."""

from __future__ import annotations

from peers.station import Station
from swarmnet.wire.invite import Invite


def enter(
    role: str, station: Station, invite: Invite, given: bytes | None, stage: int | None
) -> int:
    """Live in this role until it ends; its exit code. Raises SwarmnetError.

    ``auto`` asks the swarm what it needs most.
    """
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
    from peers.roles.stage import serve

    return serve(station, invite, given, stage)
