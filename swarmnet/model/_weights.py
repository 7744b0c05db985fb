"""Where a stage's weights come from: the run's seed, or the files of a local checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from blake3 import blake3
from safetensors import safe_open
from torch import Tensor, nn

from swarmnet.errors import ModelError
from swarmnet.model._anatomy import Anatomy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Source(Protocol):
    """Gives a module on the CPU its weights, or makes torch's generator ready to draw them."""

    def fill(self, name: str, module: nn.Module) -> None: ...

    def holds(self, name: str) -> bool:
        """Whether there is a weight of its own for ``name``, though it may be tied."""
        ...


class Seeded:
    """New weights: each part draws from a seed of its own, so a cut elsewhere changes no bit."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fill(self, name: str, module: nn.Module) -> None:
        torch.manual_seed(part_seed(self._seed, name))

    def holds(self, name: str) -> bool:
        return False


class Checkpoint:
    """A folder's safetensors, of which only what is asked for is read."""

    def __init__(self, folder: Path, prefix: str) -> None:
        """``prefix`` begins names, but need not do so in the files.

        Raises:
            ModelError: the folder holds no safetensors, or an index that names other places.
        """
        self._folder, self._prefix = folder, f"{prefix}."
        self._files = _index(folder)

    def fill(self, name: str, module: nn.Module) -> None:
        """Raises ModelError when the files lack a weight of ``module`` or hold another shape."""
        where: dict[str, list[tuple[str, Tensor]]] = {}
        persistent = module.state_dict(keep_vars=True)
        for inner, tensor in persistent.items():
            found = self._find(f"{name}.{inner}")
            where.setdefault(self._files[found], []).append((found, tensor))
        for file, wanted in where.items():
            with safe_open(self._folder / file, framework="pt", device="cpu") as opened:
                for found, tensor in wanted:
                    shape = tuple(opened.get_slice(found).get_shape())
                    if shape != tuple(tensor.shape):
                        raise ModelError(
                            f"{self._folder}: {found!r} is {shape}, not {tuple(tensor.shape)}"
                        )
                    tensor.copy_(opened.get_tensor(found))
                    # The library's own mark, which keeps its initialisation away.
                    tensor._is_hf_initialized = True  # type: ignore[attr-defined]

    def holds(self, name: str) -> bool:
        return self._found(name) in self._files

    def _find(self, name: str) -> str:
        if not self.holds(name):
            raise ModelError(f"{self._folder}: weights lack {name!r}")
        return self._found(name)

    def _found(self, name: str) -> str:
        return name if name in self._files else name.removeprefix(self._prefix)


def furnish(anatomy: Anatomy, own: Sequence[str], source: Source) -> None:
    """Puts stand-ins everywhere but in the parts ``own``, and gives these their weights.

    A tied head gets a copy of the embedding's matrix, or the matrix itself where both are here.

    Raises:
        ModelError: the model cannot be cut, or ``source`` lacks something.
    """
    parts = anatomy.hollow()
    for name in anatomy.common:
        materialise(name, anatomy.part(name), anatomy.base, Seeded(0))
    anatomy.check_hollow()
    for name in own:
        module = parts[name]
        anatomy.model.set_submodule(name, module)
        if name == anatomy.head:
            _furnish_head(anatomy, parts, anatomy.embedding in own, source)
        else:
            materialise(name, module, anatomy.base, source)


def _furnish_head(
    anatomy: Anatomy, parts: Mapping[str, nn.Module], together: bool, source: Source
) -> None:
    head: Any = parts[anatomy.head]
    embedding: Any = parts[anatomy.embedding]
    if not anatomy.tied or source.holds(f"{anatomy.head}.weight"):
        materialise(anatomy.head, head, anatomy.model, source)
        if anatomy.tied and together and torch.equal(head.weight, embedding.weight):
            head.weight = embedding.weight
        return
    head.weight = None
    materialise(anatomy.head, head, anatomy.model, source)
    if not together:
        materialise(anatomy.embedding, embedding, anatomy.base, source)
    head.weight = embedding.weight


def part_seed(seed: int, name: str) -> int:
    """The seed of one named part of a run's model: 63 bits."""
    return int.from_bytes(blake3(f"{seed} {name}".encode()).digest(8), "little") >> 1


@torch.no_grad()
def materialise(name: str, module: nn.Module, owner: PreTrainedModel, source: Source) -> None:
    """Gives the meta module ``module`` memory and values, by the initialisation of ``owner``.

    Raises:
        ModelError: some of its values are not numbers, or have no initialisation.
    """
    module.to_empty(device="cpu")
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    with torch.random.fork_rng(devices=[]):
        source.fill(name, module)
        module.apply(owner._init_weights)
    for tensor in (*module.parameters(), *module.buffers()):
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"model: weights of {name!r} are not numbers")


def _index(folder: Path) -> dict[str, str]:
    """Name of a weight -> file within the folder."""
    if (folder / SINGLE).is_file():
        with safe_open(folder / SINGLE, framework="pt", device="cpu") as opened:
            return dict.fromkeys(opened.keys(), SINGLE)
    if not (folder / INDEX).is_file():
        raise ModelError(f"{folder}: holds no safetensors, and nothing else is read")
    files = json.loads((folder / INDEX).read_bytes())["weight_map"]
    for file in set(files.values()):
        if Path(file).name != file or not (folder / file).is_file():
            raise ModelError(f"{folder}: its index names {file!r}, which is no file there")
    return dict(files)
