"""One checkpoint out of the stages of a pipeline: each stage's weights from whoever serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from peers.give import Portrait, ask_state
from peers.link import Link, learn_run, start_node
from peers.station import Station
from swarmnet.boundary import Boundary
from swarmnet.config import RunFile
from swarmnet.errors import LinkError, ModelError, PeerFault, UnreachableError
from swarmnet.exchange.membership import Status
from swarmnet.model import ModelBuilder, StageModule
from swarmnet.train.flat import flatten_parameters
from swarmnet.wire.invite import Invite

WAIT_S = 30.0
ASK_AGAIN_S = 1.0


@dataclass(frozen=True)
class Joined:
    """``steps`` and ``givers`` by stage; ``thetas`` are the stages' flat weights, (P,) each."""

    run: RunFile
    thetas: tuple[Tensor, ...]
    steps: tuple[int, ...]
    givers: tuple[str, ...]


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
        module = stage_module(self._joined.run, self._models, index)
        flat = flatten_parameters(module)
        if flat.shape != self._joined.thetas[index].shape:
            raise ModelError(f"the weights of stage {index} do not fit the run's model")
        with torch.no_grad():
            flat.copy_(self._joined.thetas[index])
        return module.state_dict()

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        return (self[index] for index in range(len(self)))


def stage_module(run: RunFile, models: Mapping[str, Path], index: int) -> StageModule:
    """One stage as every peer builds it from the run file."""
    config = run.config
    builder: ModelBuilder = config.model.build("model", models)
    boundary: Boundary = config.boundary.build("boundary")
    return builder.stage(config.seed, index, config.pipeline.stages, boundary)


def save(joined: Joined, models: Mapping[str, Path], folder: Path) -> None:
    """Write what ``from_pretrained`` loads. Raises ModelError, StorageError."""
    builder: ModelBuilder = joined.run.config.model.build("model", models)
    builder.save_joined(States(joined, models), folder)


def from_swarm(station: Station, invite: Invite) -> Joined:
    """Fetch every stage from a live peer. Raises UnreachableError: some stage nobody gives."""

    async def collect() -> Joined:
        node = await start_node(station, invite)
        link: Link | None = None
        try:
            run = await learn_run(station, node, invite, None)
            link = await Link.join(station, node, run, invite.owner, _status)
            stages = run.config.pipeline.stages
            models = station.peer.models
            given = [await _stage(link, index, models) for index in range(stages)]
        finally:
            if link is not None:
                await link.leave()
            else:
                await node.close()
        return Joined(
            run,
            tuple(portrait.tensors["theta"].clone() for _, portrait in given),
            tuple(portrait.facts["step"] for _, portrait in given),
            tuple(peer for peer, _ in given),
        )

    return station.run(collect())


async def _stage(link: Link, index: int, models: Mapping[str, Path]) -> tuple[str, Portrait]:
    """From the peer that is furthest, or the next one."""
    module = await asyncio.to_thread(stage_module, link.run, models, index)
    numel = flatten_parameters(module).numel()
    deadline = asyncio.get_running_loop().time() + WAIT_S
    members = link.membership
    while True:
        peers = link.stages().get(index, [])
        for peer in sorted(peers, key=lambda p: _rank(members.status(p)), reverse=True):
            try:
                portrait = await ask_state(link.node, peer, "weights", 4 * numel)
            except (LinkError, PeerFault):
                continue
            theta = portrait.tensors.get("theta")
            if theta is not None and theta.shape == (numel,) and theta.isfinite().all():
                return peer, portrait
        if asyncio.get_running_loop().time() > deadline:
            raise UnreachableError(f"no live peer gives the weights of stage {index}")
        await asyncio.sleep(ASK_AGAIN_S)


def _rank(status: Status | None) -> tuple[bool, int]:
    """Replicas of a stage are one when they serve; before that the furthest is worth most."""
    return (False, 0) if status is None else (status.state == "serving", status.step)


def _status() -> Status:
    return Status(incarnation=0, counter=0, state="syncing", role="export")
