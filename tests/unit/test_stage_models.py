"""Stages of real models in the hands of their cores: the gradient of the whole model."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from swarmnet.config import Choice
from swarmnet.train.stage import StageCore
from tests.unit.tiny_stage import Master, trip

LENGTH = 8
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": LENGTH}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
CASES = {
    "llama": ("llama", LLAMA, "lm_head.weight"),
    "llama tied": ("llama", LLAMA | {"tie_word_embeddings": True}, "model.embed_tokens.weight"),
    "gpt2": ("gpt2", GPT2, "transformer.wte.weight"),
}


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_cores_of_a_cut_model_sum_the_gradient_of_the_whole_one(case: str, stages: int) -> None:
    """A head that is untied at the cut has its share of the tied weight's gradient."""
    name, config, head = CASES[case]
    builder = Choice(name="causal_lm", architecture=name, config=config).build("model", {})
    plain = Choice(name="plain").build("boundary")
    parts = [builder.stage(0, k, stages, plain).double() for k in range(stages)]
    whole = builder.build(0).double()
    whole.load_state_dict(builder.join([part.state_dict() for part in parts]), strict=False)
    source = torch.Generator().manual_seed(0)
    tokens = [torch.randint(0, 256, (2, LENGTH + 1), generator=source) for _ in range(3)]

    cores = [StageCore(Master(part)) for part in parts]
    loss = trip(cores, {0: tokens[0], 1: tokens[1]}) + trip(cores, {2: tokens[2]})
    joined = torch.cat(tokens)
    scores = whole(input_ids=joined[:, :-1], use_cache=False).logits.double()
    expected = functional.cross_entropy(
        scores.flatten(0, 1), joined[:, 1:].flatten(), reduction="sum"
    )
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=1e-10)

    wanted = {key: parameter.grad for key, parameter in whole.named_parameters()}
    for core, part in zip(cores, parts, strict=True):
        vector, offset = core.freeze().vector, 0
        for key, parameter in part.named_parameters():
            found = vector[offset : offset + parameter.numel()].view(parameter.shape)
            full = part.full_name(key)
            wanted[full if full in wanted else head] -= found
            offset += parameter.numel()
    assert max(float(rest.abs().max()) for rest in wanted.values()) < 1e-10
