"""One checkpoint out of the stages of a pipeline: each stage's weights from whoever serves it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peers.link import REFERENCE, Link
from peers.portrait import Portrait
from peers.take import take_weights
from swarmnet.boundary import Boundary
from swarmnet.config import RunFile
from swarmnet.errors import ConfigError, ModelError, UnreachableError
from swarmnet.exchange.membership import Status
from swarmnet.model import ModelBuilder, StageModule
from swarmnet.train import checkpoint
from swarmnet.train.flat import flatten_parameters

WAIT_S = 30.0
ASK_AGAIN_S = 1.0


@dataclass(frozen=True)
class Joined:
    """``steps`` and ``givers`` by stage; ``thetas`` are the stages' flat weights, (P,) each.

    ``disagreement`` is the largest root mean square difference between two that gave one stage
    after the same step; peers of a stage are identical, so anything above 0 is a fault.
    """

    run: RunFile
    thetas: tuple[Tensor, ...]
    steps: tuple[int, ...]
    givers: tuple[tuple[str, ...], ...]
    disagreement: float = 0.0

    def save(self, models: Mapping[str, Path], folder: Path) -> None:
        """Write what ``from_pretrained`` loads. Raises ModelError, StorageError."""
        builder: ModelBuilder = self.run.config.model.build("model", models)
        builder.save_joined(States(self, models), folder)

    def figures(self) -> dict[str, Any]:
        givers = [list(names) for names in self.givers]
        return {
            "stages": len(self.thetas),
            "steps": list(self.steps),
            "givers": givers,
            "disagreement": self.disagreement,
        }

    def said(self, folder: Path) -> str:
        steps = ", ".join(map(str, self.steps))
        return f"{len(self.thetas)} stages joined into {folder} (after steps {steps})"

    def module(self, models: Mapping[str, Path], index: int) -> StageModule:
        """One stage with its weights. Raises ModelError when they do not fit the run's model."""
        module = stage_module(self.run, models, index)
        flat = flatten_parameters(module)
        if flat.shape != self.thetas[index].shape:
            raise ModelError(f"the weights of stage {index} do not fit the run's model")
        with torch.no_grad():
            flat.copy_(self.thetas[index])
        return module


class States(Sequence[Mapping[str, Tensor]]):
    """The state dicts of all stages, made one at a time: only one has to fit into memory."""

    def __init__(self, joined: Joined, models: Mapping[str, Path]) -> None:
        self._joined = joined
        self._models = models

    def __len__(self) -> int:
        return len(self._joined.thetas)

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._joined.module(self._models, index).state_dict()

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        return (self[index] for index in range(len(self)))


def stage_module(run: RunFile, models: Mapping[str, Path], index: int) -> StageModule:
    """One stage as every peer builds it from the run file."""
    config = run.config
    builder: ModelBuilder = config.model.build("model", models)
    boundary: Boundary = config.boundary.build("boundary")
    return builder.stage(config.seed, index, config.pipeline.stages, boundary)


async def fetch(link: Link, models: Mapping[str, Path], witnesses: int = 1) -> Joined:
    """Every stage from up to ``witnesses`` of its live peers.

    Raises:
        UnreachableError: some stage nobody gives.
    """
    stages = range(link.run.config.pipeline.stages)
    given = [await _stage(link, index, models, witnesses) for index in stages]
    best = [portraits[0][1] for portraits in given]
    return Joined(
        link.run,
        tuple(portrait.tensors["theta"].clone() for portrait in best),
        tuple(portrait.facts["step"] for portrait in best),
        tuple(tuple(peer for peer, _ in portraits) for portraits in given),
        max(_apart([portrait for _, portrait in portraits]) for portraits in given),
    )


async def _stage(
    link: Link, index: int, models: Mapping[str, Path], witnesses: int
) -> list[tuple[str, Portrait]]:
    """From those that are furthest, or the next ones; the furthest first."""
    module = await asyncio.to_thread(stage_module, link.run, models, index)
    numel = flatten_parameters(module).numel()
    deadline = asyncio.get_running_loop().time() + WAIT_S
    members = link.membership
    while True:
        peers = link.stages().get(index, [])
        found: list[tuple[str, Portrait]] = []
        for peer in sorted(peers, key=lambda p: _rank(members.status(p)), reverse=True):
            portrait = await _weights(link, peer, index, numel)
            if portrait is not None and len(found) < witnesses:
                found.append((peer, portrait))
        if found:
            return sorted(found, key=lambda one: -int(one[1].facts["step"]))
        if asyncio.get_running_loop().time() > deadline:
            raise UnreachableError(f"no live peer gives the weights of stage {index}")
        await asyncio.sleep(ASK_AGAIN_S)


def _rank(status: Status | None) -> tuple[bool, int]:
    """Replicas of a stage are one when they serve; before that the furthest is worth most."""
    return (False, 0) if status is None else (status.state == "serving", status.step)


async def _weights(link: Link, peer: str, index: int, numel: int) -> Portrait | None:
    """(numel,) finite values of that very stage, or nothing."""
    try:
        portrait = await take_weights(link.node, peer, numel)
    except UnreachableError:
        return None
    return portrait if portrait.facts.get("stage") == index else None


def _apart(portraits: Sequence[Portrait]) -> float:
    first = portraits[0]
    alike = [p for p in portraits[1:] if p.facts["step"] == first.facts["step"]]
    square = [
        (p.tensors["theta"].double() - first.tensors["theta"].double()).square().mean().item()
        for p in alike
    ]
    return math.sqrt(max(square, default=0.0))


def from_folders(run: RunFile, folders: Sequence[Path]) -> Joined:
    """Join checkpoints that stage peers left behind: of each stage the furthest.

    Raises:
        ConfigError: a folder holds no whole checkpoint, or some stage is in none.
    """
    found: dict[int, tuple[int, str, Tensor]] = {}
    for folder in folders:
        if RunFile.load(folder / REFERENCE).fingerprint != run.fingerprint:
            raise ConfigError(f"{folder}: another run than {folders[0]}")
        kept = checkpoint.read(folder / "checkpoint", {"fingerprint": run.fingerprint})
        if kept is None or "stage" not in kept[1]:
            raise ConfigError(f"{folder}: holds no whole checkpoint of a stage")
        tensors, facts = kept
        stage, step = int(facts["stage"]), int(facts["step"])
        if stage not in found or found[stage][0] < step:
            found[stage] = step, folder.name, tensors["theta"]
    stages = range(run.config.pipeline.stages)
    absent = [str(stage) for stage in stages if stage not in found]
    if absent:
        raise ConfigError(f"no folder holds stage {', '.join(absent)}: give those of its peers too")
    steps, names, thetas = zip(*(found[stage] for stage in stages), strict=True)
    return Joined(run, thetas, steps, tuple((name,) for name in names))
