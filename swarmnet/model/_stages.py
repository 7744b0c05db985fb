"""One stage of a model that is cut into several: what a stage peer serves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from swarmnet.errors import ModelError
from swarmnet.model._anatomy import Anatomy

BOUNDARY = "boundary."
BODY = "body."


class Writer(NamedTuple):
    """A linear map that adds to the residual stream; ``axis`` of its weight is the stream's."""

    module: nn.Module
    axis: int


class StageModule(nn.Module):
    """Blocks of one stage, the embedding before them or the head behind them, and its boundaries.

    ``body`` is the library's own model with stand-ins for what other stages hold, so a parameter
    is named ``body.`` and its name in the checkpoint, or ``boundary.`` and the boundary's own name.
    A stage that has dropout draws from torch's global generator: computing it again gives another
    activation, so a run whose gradient must be exact sets the dropouts of its config to 0.
    """

    def __init__(
        self, anatomy: Anatomy, layers: range, index: int, stages: int, ends: nn.ModuleDict
    ) -> None:
        """``ends``: the boundary's modules, ``receiver`` and ``sender``, where there is a cut."""
        super().__init__()
        self.index, self.stages = index, stages
        self.first, self.last = index == 0, index == stages - 1
        self.width, self.vocab = anatomy.width, anatomy.vocab
        self.layers = layers
        self.body: nn.Module = anatomy.model
        self.boundary = ends
        self._anatomy = anatomy

    def forward(self, ids: Tensor, received: Tensor | None = None) -> Tensor:
        """(B, T) int64 ids, and (B, T, features) as it travelled unless this is the first stage.

        Returns:
            (B, T, features) of what travels on, or from the last stage (B, T, V) scores of the
            next token, float32 or, where the weights are wider, their type.
        """
        source = {"input_ids": ids}
        if received is not None:
            source = {"inputs_embeds": self.boundary["receiver"](received, ids)}
        scores: Tensor
        if self.last:
            scores = self.body(**source, use_cache=False).logits
            return scores.to(torch.promote_types(scores.dtype, torch.float32))
        hidden = self._anatomy.base(**source, use_cache=False).last_hidden_state
        scores = self.boundary["sender"](hidden, ids)
        return scores

    def full_name(self, name: str) -> str:
        """The name in the joined checkpoint of this stage's parameter ``name``."""
        return full_name(name, self.index)

    @property
    def blocks(self) -> list[nn.Module]:
        """The stage's transformer blocks, in order; at least one."""
        return [self._anatomy.part(self._anatomy.blocks[i]) for i in self.layers]

    @property
    def embedding(self) -> nn.Embedding | None:
        """(V, d): what a token is, on the first stage."""
        found = self._anatomy.part(self._anatomy.embedding)
        return found if isinstance(found, nn.Embedding) else None

    @property
    def positions(self) -> nn.Embedding | None:
        """(positions, d): learned embeddings of where a token stands, on the first stage."""
        for name in self._anatomy.first:
            found = self._anatomy.part(name)
            if name != self._anatomy.embedding and isinstance(found, nn.Embedding):
                return found
        return None

    @property
    def head(self) -> nn.Module | None:
        """The map to scores on the last stage."""
        return self._anatomy.part(self._anatomy.head) if self.last else None

    def writers(self) -> list[Writer]:
        """What adds to the residual stream: the outputs of attention and of the feed-forward net.

        Found as the last linear map of width d in each child of a block, whatever its name.

        Raises:
            ModelError: a child of a block ends in no linear map (a mixture of experts).
        """
        found = []
        for block in self.blocks:
            for name, child in block.named_children():
                if max((weight.ndim for weight in child.parameters()), default=0) > 1:
                    found.append(self._writer(name, child))
        return found

    def norms(self) -> list[nn.Module]:
        """What reads the residual stream: the blocks' norms and, on the last stage, the model's."""
        ends = [self._anatomy.part(name) for name in self._anatomy.last] if self.last else []
        near = [child for block in self.blocks for child in block.children()]
        return [
            module
            for module in (*near, *ends)
            if {tuple(weight.shape) for weight in module.parameters()} == {(self.width,)}
        ]

    def _writer(self, name: str, child: nn.Module) -> Writer:
        from transformers.pytorch_utils import Conv1D

        for module in reversed(list(child.modules())):
            axis = int(isinstance(module, Conv1D))  # which keeps its weight as (in, out)
            if isinstance(module, (nn.Linear, Conv1D)) and module.weight.shape[axis] == self.width:
                return Writer(module, axis)
        kind = self._anatomy.model.config.model_type
        raise ModelError(f"model architecture {kind!r}: {name!r} of a block ends in no linear map")


def full_name(name: str, index: int) -> str:
    """A checkpoint's name of the parameter ``name`` of stage ``index``.

    A boundary's module is named after its cut: ``boundary.0`` lies between stages 0 and 1.
    """
    if name.startswith(BODY):
        return name.removeprefix(BODY)
    if name.startswith(BOUNDARY):
        end = name.removeprefix(BOUNDARY)
        return f"{BOUNDARY}{index - end.startswith('receiver.')}.{end}"
    raise ModelError(f"stage {index}: {name!r} is no parameter of a stage")
