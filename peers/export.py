"""Merge what the replicas hold into one checkpoint that ``transformers`` loads.

From a live swarm the weights are fetched from every peer that has any; with nobody alive, the
checkpoints that peers left in their folders serve as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from peers.give import ask_state
from peers.link import REFERENCE, Link, learn_run, start_node
from peers.station import Station
from swarmnet.config import RunFile
from swarmnet.errors import ConfigError, LinkError, ModelError, PeerFault, UnreachableError
from swarmnet.exchange.membership import Status
from swarmnet.model import ModelBuilder
from swarmnet.train import checkpoint
from swarmnet.train.flat import flatten_parameters
from swarmnet.wire.invite import Invite

GIVING = ("training", "paused", "consensus", "serving")


@dataclass(frozen=True)
class Merged:
    """``replicas`` by peer id or folder name: (P,) each; ``theta`` their mean.

    ``disagreement`` is sqrt(sum over replicas and parameters of (w - mean)^2 / (replicas * P)).
    """

    theta: Tensor
    replicas: Mapping[str, Tensor]
    disagreement: float


def merge(replicas: Mapping[str, Tensor]) -> Merged:
    """The mean in float64, replica after replica. Raises ModelError when sizes differ."""
    sizes = {tensor.numel() for tensor in replicas.values()}
    if len(sizes) != 1:
        raise ModelError("the replicas are of different sizes: they belong to different runs")
    mean = torch.stack([t.double() for t in replicas.values()]).mean(dim=0)
    squares = sum(float(((t.double() - mean) ** 2).sum()) for t in replicas.values())
    distance = (squares / (len(replicas) * mean.numel())) ** 0.5
    return Merged(mean.float(), dict(replicas), distance)


def save(run: RunFile, theta: Tensor, models: Mapping[str, Path], folder: Path) -> None:
    """Write a checkpoint with the weights ``theta``, (P,). Raises ModelError, StorageError."""
    builder: ModelBuilder = run.config.model.build("model", models)
    module = builder.build(run.config.seed)
    flat = flatten_parameters(module)
    if flat.numel() != theta.numel():
        raise ModelError("the weights do not fit the run's model")
    with torch.no_grad():
        flat.copy_(theta)
    builder.save(module, folder)


def from_swarm(station: Station, invite: Invite) -> tuple[RunFile, Merged]:
    """Fetch and merge the weights of all live peers. Raises UnreachableError."""

    async def collect() -> tuple[RunFile, dict[str, Tensor]]:
        node = await start_node(station, invite)
        link: Link | None = None
        try:
            run = await learn_run(station, node, invite, None)
            numel = await asyncio.to_thread(_numel, run, station.peer.models)
            link = await Link.join(station, node, run, invite.owner, _status)
            return run, await _weights(link, numel)
        finally:
            if link is not None:
                await link.leave()
            else:
                await node.close()

    run, replicas = station.run(collect())
    return run, merge(replicas)


def _numel(run: RunFile, models: Mapping[str, Path]) -> int:
    builder: ModelBuilder = run.config.model.build("model", models)
    return flatten_parameters(builder.build(run.config.seed)).numel()


async def _weights(link: Link, numel: int) -> dict[str, Tensor]:
    """(numel,) each; a peer that gives anything else is left out."""
    replicas: dict[str, Tensor] = {}
    for peer in link.workers(GIVING):
        try:
            portrait = await ask_state(link.node, peer, "weights", 4 * numel)
        except (LinkError, PeerFault):
            continue
        theta = portrait.tensors.get("theta")
        if theta is not None and theta.shape == (numel,) and theta.isfinite().all():
            replicas[peer] = theta.clone()
    if not replicas:
        raise UnreachableError(
            "no live peer gives its weights; peers' own folders can be merged with --from DIR"
        )
    return replicas


def from_folders(folders: list[Path]) -> tuple[RunFile, Merged]:
    """Merge checkpoints that peers left behind. Raises ConfigError when a folder holds none."""
    replicas: dict[str, Tensor] = {}
    run: RunFile | None = None
    for folder in folders:
        here = RunFile.load(folder / REFERENCE)
        if run is not None and here.fingerprint != run.fingerprint:
            raise ConfigError(f"{folder}: another run than {folders[0]}")
        run = here
        found = checkpoint.read(folder / "checkpoint", {"fingerprint": run.fingerprint})
        if found is None:
            raise ConfigError(f"{folder}: holds no whole checkpoint")
        replicas[folder.name] = found[0]["theta"]
    if run is None:
        raise ConfigError("--from needs at least one folder")
    return run, merge(replicas)


def _status() -> Status:
    return Status(incarnation=0, counter=0, state="syncing", role="export")
