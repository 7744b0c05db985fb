"""Small models of three families, and how their stages are chained in one process."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from swarmnet.config import Choice, Section
from swarmnet.model import ModelBuilder, StageModule

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2}
GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 2, "n_positions": 64}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
MODELS: dict[str, dict[str, object]] = {
    "llama": {"architecture": "llama", "config": LLAMA},
    "llama tied": {"architecture": "llama", "config": LLAMA | {"tie_word_embeddings": True}},
    "qwen3": {"architecture": "qwen3", "config": LLAMA | SLIDING | {"head_dim": 16}},
    "gpt2": {"architecture": "gpt2", "config": GPT2 | NO_DROPOUT},
    "gpt2 untied": {
        "architecture": "gpt2",
        "config": GPT2 | NO_DROPOUT | {"tie_word_embeddings": False},
    },
}


def builder_of(options: dict[str, object], folders: dict[str, Path] | None = None) -> ModelBuilder:
    builder = Choice(name="causal_lm", **options).build("model", folders or {})
    assert isinstance(builder, ModelBuilder)
    return builder


def plain():
    return Choice(name="plain").build("boundary")


def stages_of(builder: ModelBuilder, count: int, seed: int = 5, boundary=None) -> list[StageModule]:
    boundary = boundary or plain()
    return [builder.stage(seed, index, count, boundary) for index in range(count)]


def chained(stages: list[StageModule], ids: Tensor) -> Tensor:
    """Scores of the last stage, the graph whole."""
    passed = None
    for stage in stages:
        passed = stage(ids, passed)
    return passed


def gradients(stages: list[StageModule], ids: Tensor) -> dict[str, Tensor]:
    """Of a summed loss, each stage in a graph of its own, by the checkpoint's names."""
    inputs, outputs = [None], []
    for stage in stages:
        outputs.append(stage(ids, inputs[-1]))
        inputs.append(outputs[-1].detach().requires_grad_())
    scored = outputs.pop()
    summed_loss(scored, ids).backward()
    for output, received in reversed(list(zip(outputs, inputs[1:-1], strict=True))):
        output.backward(received.grad)
    return {
        stage.full_name(name): parameter.grad
        for stage in stages
        for name, parameter in stage.named_parameters()
    }


def summed_loss(scores: Tensor, ids: Tensor) -> Tensor:
    flat = scores[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(flat, ids[:, 1:].flatten(), reduction="sum")


def loaded(folder: Path) -> nn.Module:
    module, report = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return module


class Narrow(nn.Module):
    """A sender or receiver with a matrix of its own."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.map = nn.Linear(before, after)

    def forward(self, hidden, ids):
        return self.map(hidden)


class Narrowing:
    """As much of a ``Boundary`` as building a stage needs; counts what it constrained."""

    class Config(Section): ...

    def __init__(self) -> None:
        self.constrained: list[tuple[StageModule, bool, bool]] = []

    def sender(self, width, vocab):
        return Narrow(width, 8)

    def receiver(self, width, vocab):
        return Narrow(8, width)

    def constrain(self, stage, first, last):
        self.constrained.append((stage, first, last))
