"""What a ``transformers`` causal language model is made of, found without knowing its family.

A stage runs the library's own decoder code, masks and positions included, on a model whose foreign
parts are stand-ins that own nothing and change nothing. So names stay those of the checkpoint, and
a model that does more between its blocks than pass on activations is noticed and refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from swarmnet.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONTEXT = 1024  # tokens that attention is assumed to see, where the model's own limit is no less


class PassOn(nn.Module):
    """Stands where another stage's module is: what comes in goes out."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden


class NoPositions(nn.Module):
    """Stands for position embeddings, which only the first stage adds."""

    def forward(self, positions: Tensor, *_: Any, **__: Any) -> Tensor:
        # Integers: adding them promotes no activation to another floating type.
        return torch.zeros_like(positions).unsqueeze(-1)


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model by their full names; ``common`` ones have no weights and stay in all."""

    model: PreTrainedModel
    base: PreTrainedModel
    embedding: str
    first: tuple[str, ...]
    blocks: tuple[str, ...]
    last: tuple[str, ...]
    common: tuple[str, ...]
    head: str

    @property
    def prefix(self) -> str:
        """What begins the names of everything but the head."""
        return self.model.base_model_prefix

    @property
    def tied(self) -> dict[str, str]:
        """Name of the head's matrix -> name of the embedding's, where the config makes them one."""
        keys = self.model._tied_weights_keys if self.model.config.tie_word_embeddings else None
        return {f"{self.head}.weight": f"{self.embedding}.weight"} if keys else {}

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def vocab(self) -> int:
        return int(self.model.config.vocab_size)

    def part(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)

    def of(self, layers: range, first: bool, last: bool) -> tuple[str, ...]:
        """Names of what a stage owns, in the order of computation."""
        ends = (*self.last, self.head) if last else ()
        return (*(self.first if first else ()), *(self.blocks[i] for i in layers), *ends)

    def costs(self) -> list[int]:
        """Multiplications per token in each block; the head counts with the last block.

        Looking up an embedding is free. Attention reads half of the context on average, for scores
        and for values. The idle experts of a mixture count too.
        """
        config = self.model.config
        reach = min(CONTEXT, getattr(config, "max_position_embeddings", None) or CONTEXT)
        heads = config.num_attention_heads
        attention = reach * heads * (getattr(config, "head_dim", None) or self.width // heads)
        costs = [attention + _matmuls(self.part(name)) for name in self.blocks]
        costs[-1] += _matmuls(self.part(self.head))
        return costs

    def hollow(self) -> dict[str, nn.Module]:
        """Puts stand-ins in all places but the common ones; returns what stood there."""
        removed = {}
        for name in (*self.first, *self.blocks, *self.last, self.head):
            removed[name] = module = self.part(name)
            positions = isinstance(module, nn.Embedding) and name != self.embedding
            self.model.set_submodule(name, NoPositions() if positions else PassOn())
        return removed

    @torch.no_grad()
    def check_hollow(self) -> None:
        """Raises ModelError unless a hollow model returns exactly what it is given."""
        probe = torch.linspace(-1.0, 1.0, 2 * self.width).view(1, 2, self.width)
        try:
            out = self.base(inputs_embeds=probe, use_cache=False).last_hidden_state
        except Exception as error:  # whatever the library's code makes of a block that is not there
            raise ModelError(f"{_kind(self.model)} passes on more than activations") from error
        if not torch.equal(out, probe):
            raise ModelError(f"{_kind(self.model)} changes activations outside of its blocks")


def dissect(model: Any) -> Anatomy:
    """The anatomy of a model, weights not needed.

    Raises:
        ModelError: it is no embedding, chain of blocks and head, so that it cannot be cut.
    """
    base, embedding = model.base_model, model.get_input_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    children = dict(base.named_children())
    chains = [name for name, module in children.items() if isinstance(module, nn.ModuleList)]
    head = names.get(id(model.get_output_embeddings()), "")
    prefix = f"{names.get(id(base), '')}."
    owners = {names.get(id(base), ""), head}
    if (
        len(chains) != 1
        or len(list(children[chains[0]].children())) != model.config.num_hidden_layers
        or not getattr(model.config, "num_attention_heads", 0)
        or embedding not in children.values()
        or embedding.weight.shape[1] != model.config.hidden_size
        or {name for name, child in model.named_children() if _weighs(child)} != owners
        or any(True for owner in (model, base) for _ in owner.parameters(recurse=False))
    ):
        raise ModelError(f"{_kind(model)} is no embedding, chain of blocks and head")
    before = list(children)[: list(children).index(chains[0])]
    first, last, common = [], [], []
    for name, child in children.items():
        if isinstance(child, nn.Dropout) or (_weighs(child) and name in before):
            first.append(prefix + name)
        elif _weighs(child) and name != chains[0]:
            last.append(prefix + name)
        elif name != chains[0]:
            common.append(prefix + name)
    blocks = (f"{prefix}{chains[0]}.{i}" for i in range(model.config.num_hidden_layers))
    return Anatomy(
        model=model,
        base=base,
        embedding=names[id(embedding)],
        first=tuple(first),
        blocks=tuple(blocks),
        last=tuple(last),
        common=tuple(common),
        head=head,
    )


def _weighs(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _matmuls(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.ndim > 1)


def _kind(model: PreTrainedModel) -> str:
    return f"model architecture {model.config.model_type!r} cannot be cut into stages: it"
