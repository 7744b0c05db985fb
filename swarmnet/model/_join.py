"""From the stages' weights back to one checkpoint, one stage in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from swarmnet.errors import ModelError
from swarmnet.model._stages import BOUNDARY, full_name
from swarmnet.model._weights import INDEX, SINGLE

EXTRA = "boundary.safetensors"


@dataclass(frozen=True, slots=True)
class Joint:
    """What the joined weights must be: names and shapes, and which name repeats which."""

    shapes: Mapping[str, tuple[int, ...]]
    aliases: Mapping[str, str]

    def parts(self, states: Sequence[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Each stage's weights by their names in the checkpoint, checked.

        The copy of a tied matrix is left out while it equals its original bit for bit.

        Raises:
            ModelError: a weight is absent, unknown, there twice or of another shape.
        """
        seen: set[str] = set()
        originals: dict[str, Tensor] = {}
        for index, state in enumerate(states):
            part = {full_name(name, index): tensor for name, tensor in state.items()}
            for name, tensor in part.items():
                self._check(index, name, tensor, seen)
                seen.add(name)
            originals |= {name: part[name] for name in self.aliases.values() if name in part}
            for name, original in self.aliases.items():
                copy = part.get(name)
                if (
                    copy is not None
                    and original in originals
                    and torch.equal(copy, originals[original])
                ):
                    del part[name]
            yield part
        if absent := sorted(self.shapes.keys() - seen):
            raise ModelError(f"joined stages lack {absent[0]!r}")

    def _check(self, index: int, name: str, tensor: Tensor, seen: set[str]) -> None:
        if name in seen:
            raise ModelError(f"stage {index}: {name!r} is in another stage too")
        if name.startswith(BOUNDARY):
            return
        if name not in self.shapes:
            raise ModelError(f"stage {index}: the model has no {name!r}")
        if tuple(tensor.shape) != self.shapes[name]:
            raise ModelError(
                f"stage {index}: {name!r} is {tuple(tensor.shape)}, not {self.shapes[name]}"
            )


def write(parts: Iterator[dict[str, Tensor]], stages: int, folder: Path) -> set[str]:
    """One file a stage, as ``from_pretrained`` reads them; boundaries' own weights in ``EXTRA``.

    Returns the names that were written, boundaries' included.

    Raises:
        OSError, SafetensorError: the disk refused.
    """
    files: dict[str, str] = {}
    size = 0
    extra: dict[str, Tensor] = {}
    for index, part in enumerate(parts):
        part = {name: tensor.detach().cpu().clone() for name, tensor in part.items()}
        extra |= {name: part.pop(name) for name in list(part) if name.startswith(BOUNDARY)}
        file = f"model-{index + 1:05}-of-{stages:05}.safetensors" if stages > 1 else SINGLE
        save_file(part, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
        size += sum(tensor.nbytes for tensor in part.values())
    if stages > 1:
        index_of = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
        (folder / INDEX).write_text(json.dumps(index_of, indent=2))
    if extra:
        save_file(extra, folder / EXTRA, metadata={"format": "pt"})
    return files.keys() | extra.keys()
