"""What a process is to the swarm: each file is one role, chosen by its name."""

from __future__ import annotations

from peers.station import Station
from swarmnet.errors import ConfigError
from swarmnet.wire.invite import Invite

ALL = "all"


def chosen(stages: str | None) -> list[int] | None:
    """What ``--stage`` asks for: the numbers in "0,2", an empty list for "all"; None without it.

    Raises:
        ConfigError: it is no list of stages.
    """
    if stages is None:
        return None
    if stages == ALL:
        return []
    numbers = stages.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise ConfigError(f"--stage {stages!r}: give a number, several with commas, or {ALL}")
    return sorted({int(number) for number in numbers})


def enter(
    role: str, station: Station, invite: Invite, given: bytes | None, stages: list[int] | None
) -> int:
    """Live in this role until it ends; its exit code. Raises SwarmnetError.

    ``auto`` asks the swarm what it needs most. ``stages``: a stage peer's, as ``chosen`` reads
    them.
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
