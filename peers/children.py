"""What the forked processes of a local swarm do: thin entries around the roles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from peers.roles.bootstrap import Bootstrap, write_invite
from peers.roles.worker import work
from peers.station import Station
from swarmnet.config import PeerConfig, RunFile
from swarmnet.wire.invite import Invite

INVITE = "invite.txt"


def bootstrap_child(out: Path, raw: bytes, settings: Mapping[str, Any]) -> int:
    """Start the run and write its invite into ``out``."""
    torch.set_num_threads(1)
    station = _station(out, settings)
    role = Bootstrap(station, RunFile(raw))
    try:
        write_invite(role.start(), out / INVITE)
        return role.serve(lambda seen: None)
    finally:
        station.close()


def worker_child(out: Path, invite: str, settings: Mapping[str, Any]) -> int:
    """Join the run and train to its end."""
    return work(_station(out, settings), Invite.decode(invite))


def _station(out: Path, settings: Mapping[str, Any]) -> Station:
    station = Station.open(out, out.name, PeerConfig.model_validate(settings))
    station.stop.on_signals()
    return station
