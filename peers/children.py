"""What the forked processes of a local swarm do: thin entries around the roles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from peers.finish import finish_child
from peers.nursery import INVITE, RESULT
from peers.pipeline.ending import join_child
from peers.roles import chosen, enter
from peers.roles.bootstrap import Bootstrap, write_invite
from peers.roles.stages import serve_stages
from peers.roles.trainer import train
from peers.roles.worker import work
from peers.solo import train_alone
from peers.station import Station
from swarmnet.config import PeerConfig, RunFile
from swarmnet.data import Corpus
from swarmnet.model import ModelBuilder
from swarmnet.train.loop import choose_device
from swarmnet.wire.invite import Invite

__all__ = [
    "auto_child",
    "bootstrap_child",
    "finish_child",
    "join_child",
    "solo_child",
    "stage_child",
    "trainer_child",
    "worker_child",
]


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


def auto_child(out: Path, invite: str, settings: Mapping[str, Any]) -> int:
    """Join the run as what it needs most."""
    return enter("auto", _station(out, settings), Invite.decode(invite), None, None)


def stage_child(
    out: Path, invite: str, settings: Mapping[str, Any], stage: int | str | None = None
) -> int:
    """Join the run as a stage peer: of some stages, "all", or where the swarm needs it most."""
    stages = None if stage is None else str(stage)
    return serve_stages(_station(out, settings), Invite.decode(invite), None, chosen(stages))


def trainer_child(out: Path, invite: str, settings: Mapping[str, Any]) -> int:
    """Join the run as a trainer."""
    torch.set_num_threads(1)
    return train(_station(out, settings), Invite.decode(invite))


def solo_child(out: Path, raw: bytes, steps: int, settings: Mapping[str, Any]) -> int:
    """Train one worker alone for ``steps`` steps and write how it ended."""
    peer = PeerConfig.model_validate(settings)
    torch.set_num_threads(peer.threads or 1)
    run = RunFile(raw).config
    builder: ModelBuilder = run.model.build("model", peer.models)
    corpus: Corpus = run.data.build("data", builder.tokenizer(), peer.texts, peer.cache)
    device = choose_device(peer.device)
    lr = run.inner.config("inner").lr
    result = train_alone(run, corpus, steps, lr, run.seed, device)
    (out / RESULT).write_text(json.dumps(asdict(result)))
    return 0


def _station(out: Path, settings: Mapping[str, Any]) -> Station:
    station = Station.open(out, out.name, PeerConfig.model_validate(settings))
    station.listen()
    return station
