"""Make one checkpoint that ``transformers`` loads out of what peers hold: replicas or stages.

From a live swarm the weights are fetched from every peer that has any; with nobody alive, the
checkpoints that peers left in their folders serve as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peers.joined import Joined, fetch
from peers.joined import from_folders as stages_from_folders
from peers.link import REFERENCE, Link
from peers.station import Station
from peers.take import take_weights
from peers.visit import visiting
from swarmnet.config import RunFile
from swarmnet.errors import ConfigError, ModelError, UnreachableError
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

    run: RunFile
    theta: Tensor
    replicas: Mapping[str, Tensor]
    disagreement: float

    def save(self, models: Mapping[str, Path], folder: Path) -> None:
        """Write a checkpoint with the merged weights. Raises ModelError, StorageError."""
        builder: ModelBuilder = self.run.config.model.build("model", models)
        module = builder.build(self.run.config.seed)
        flat = flatten_parameters(module)
        if flat.numel() != self.theta.numel():
            raise ModelError("the weights do not fit the run's model")
        with torch.no_grad():
            flat.copy_(self.theta)
        builder.save(module, folder)

    def figures(self) -> dict[str, Any]:
        return {"replicas": sorted(self.replicas), "disagreement": self.disagreement}

    def said(self, folder: Path) -> str:
        count = len(self.replicas)
        return f"{count} replicas merged into {folder} (disagreement {self.disagreement:.2e})"


def merge(run: RunFile, replicas: Mapping[str, Tensor]) -> Merged:
    """The mean in float64, replica after replica. Raises ModelError when sizes differ."""
    sizes = {tensor.numel() for tensor in replicas.values()}
    if len(sizes) != 1:
        raise ModelError("the replicas are of different sizes: they belong to different runs")
    mean = torch.stack([t.double() for t in replicas.values()]).mean(dim=0)
    squares = sum(float(((t.double() - mean) ** 2).sum()) for t in replicas.values())
    distance = (squares / (len(replicas) * mean.numel())) ** 0.5
    return Merged(run, mean.float(), dict(replicas), distance)


def from_swarm(station: Station, invite: Invite, witnesses: int = 1) -> Merged | Joined:
    """Fetch what live peers hold: all replicas, or every stage from up to ``witnesses`` peers.

    Raises:
        UnreachableError: nobody gives the weights, or those of some stage.
    """

    async def collect() -> Merged | Joined:
        async with visiting(station, invite, "export") as link:
            if link.run.config.pipeline.stages > 1:
                return await fetch(link, station.peer.models, witnesses)
            numel = await asyncio.to_thread(_numel, link.run, station.peer.models)
            replicas = await _weights(link, numel)
            return await asyncio.to_thread(merge, link.run, replicas)

    return station.run(collect())


def _numel(run: RunFile, models: Mapping[str, Path]) -> int:
    builder: ModelBuilder = run.config.model.build("model", models)
    return flatten_parameters(builder.build(run.config.seed)).numel()


async def _weights(link: Link, numel: int) -> dict[str, Tensor]:
    """(numel,) finite values each; a peer that gives anything else is left out."""
    replicas: dict[str, Tensor] = {}
    for peer in link.workers(GIVING):
        try:
            portrait = await take_weights(link.node, peer, numel)
        except UnreachableError:
            continue
        replicas[peer] = portrait.tensors["theta"]
    if not replicas:
        raise UnreachableError(
            "no live peer gives its weights; peers' own folders can be merged with --from DIR"
        )
    return replicas


def from_folders(folders: list[Path]) -> Merged | Joined:
    """Merge or join checkpoints that peers left. Raises ConfigError when a folder holds none."""
    if not folders:
        raise ConfigError("--from needs at least one folder")
    run = RunFile.load(folders[0] / REFERENCE)
    if run.config.pipeline.stages > 1:
        return stages_from_folders(run, folders)
    replicas: dict[str, Tensor] = {}
    for folder in folders:
        if RunFile.load(folder / REFERENCE).fingerprint != run.fingerprint:
            raise ConfigError(f"{folder}: another run than {folders[0]}")
        found = checkpoint.read(folder / "checkpoint", {"fingerprint": run.fingerprint})
        if found is None:
            raise ConfigError(f"{folder}: holds no whole checkpoint")
        replicas[folder.name] = found[0]["theta"]
    return merge(run, replicas)
