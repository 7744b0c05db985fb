"""What a swarm trains: a ``transformers`` causal language model and the tokenizer that feeds it.

A choice in this folder turns the run file's ``[model]`` into a module. Every peer builds the same
weights from the run's seed, so that a swarm may start before anybody could copy from anybody.
Checkpoints go out in the form that ``AutoModelForCausalLM.from_pretrained`` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from swarmnet.boundary import Boundary
from swarmnet.model._cut import Plan as Plan
from swarmnet.model._stages import StageModule as StageModule
from swarmnet.model._stages import Writer as Writer


@runtime_checkable
class Tokenizer(Protocol):
    """Text <-> ids. ``end`` is the id that stands between two documents.

    ``name``: two tokenizers of one name give the same ids; letters, digits and dashes.
    """

    name: str
    vocab_size: int
    end: int

    def encode(self, text: str | bytes) -> NDArray[Any]:
        """Ids of ``text``, without any special token: (n,) of the smallest unsigned type."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``; what is no valid UTF-8 becomes the replacement character."""
        ...

    def save(self, folder: Path) -> None:
        """Write what ``AutoTokenizer.from_pretrained(folder)`` loads."""
        ...


@runtime_checkable
class ModelBuilder(Protocol):
    """The run's model as a recipe. Raises ModelError where the recipe describes no model."""

    def build(self, seed: int) -> nn.Module:
        """A new float32 module on the CPU, the same bits for the same seed on every peer."""
        ...

    def plan(self, stages: int) -> Plan:
        """How the model is cut into ``stages``; needs no memory. Raises as ``stage`` does."""
        ...

    def stage(self, seed: int, index: int, stages: int, boundary: Boundary) -> StageModule:
        """One stage, float32 on the CPU, in training mode; memory is taken for this stage alone.

        A block has the same bits however the model is cut, but for what ``boundary`` constrains.
        New weights are not those of ``build``: a peer that holds all stages holds a list of them.

        Raises:
            ModelError: more stages than blocks, or a model that cannot be cut.
            ConfigError: the boundary does not fit the model's width.
        """
        ...

    def join(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The whole checkpoint's weights from every stage's ``state_dict``, in order of stages.

        The bits of the checkpoint that the stages were read from, if nothing was trained: a tied
        head is absent while it equals the embedding. A boundary's own weights are named
        ``boundary.<cut>.``; ``transformers`` has no place for them.

        Raises:
            ModelError: the states are not those of this model's stages.
        """
        ...

    def save_joined(self, states: Sequence[Mapping[str, Tensor]], folder: Path) -> None:
        """Write ``join``'s weights as ``save`` writes them, one file a stage.

        ``states`` is read once and in order, so that one state need be in memory at a time. A
        boundary's own weights go to ``boundary.safetensors``, which ``transformers`` does not
        read. ``tie_word_embeddings`` becomes false once head and embedding differ.

        Raises:
            ModelError: as ``join``.
            StorageError: the disk refused.
        """
        ...

    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose ids the module reads."""
        ...

    def save(self, module: nn.Module, folder: Path) -> None:
        """Write a ``transformers`` checkpoint: config, safetensors, tokenizer.

        Raises:
            StorageError: the disk refused.
        """
        ...


def logits(module: nn.Module, ids: Tensor) -> Tensor:
    """Scores of the next token in float32: (B, T) int64 -> (B, T, V)."""
    output: Tensor = module(input_ids=ids, use_cache=False).logits
    return output.float()


def id_type(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """The smallest type that holds every id, because a peer keeps its whole corpus in memory."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32
