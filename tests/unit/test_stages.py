"""Chained stages are the whole model: its logits, its gradients, its checkpoint, bit for bit."""

from __future__ import annotations

import pytest
import torch
from stage_models import (
    GPT2,
    LLAMA,
    MODELS,
    Narrowing,
    builder_of,
    chained,
    gradients,
    loaded,
    plain,
    stages_of,
    summed_loss,
)

from swarmnet.errors import ModelError
from swarmnet.model import logits


@pytest.fixture(params=sorted(MODELS))
def builder(request):
    return builder_of(MODELS[request.param])


@pytest.fixture
def ids():
    return torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def whole(builder, tmp_path):
    """Made from the only stage, and by the library from what was written."""
    builder.save_joined([builder.stage(5, 0, 1, plain()).state_dict()], tmp_path / "whole")
    return loaded(tmp_path / "whole")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_chain_gives_the_whole_models_logits(builder, whole, ids, count):
    with torch.no_grad():
        scores = chained(stages_of(builder, count), ids)
        assert scores.dtype == torch.float32
        assert torch.equal(scores, logits(whole, ids))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_chains_gradients_are_the_whole_models(builder, whole, ids, count):
    whole = whole.double()
    scores = whole(input_ids=ids).logits
    summed_loss(scores, ids).backward()
    stages = [stage.double() for stage in stages_of(builder, count)]
    assert (chained(stages, ids) - scores).abs().max() < 1e-12
    found = gradients(stages, ids)
    tied = whole.config.tie_word_embeddings
    if tied and count > 1:
        embedding = next(name for name in found if "wte" in name or "embed_tokens" in name)
        found[embedding] += found.pop("lm_head.weight")
    expected = {name: parameter.grad for name, parameter in whole.named_parameters()}
    assert found.keys() == expected.keys()
    assert max((found[name] - expected[name]).abs().max() for name in found) < 1e-10


def test_a_part_has_the_same_bits_however_the_model_is_cut(builder):
    whole = {}
    for count in (1, 2, 3, 4):
        for stage in stages_of(builder, count):
            for name, value in stage.state_dict().items():
                full = stage.full_name(name)
                assert torch.equal(whole.setdefault(full, value), value), full


def test_another_seed_gives_other_weights_and_blocks_differ(builder):
    mine, other = (builder.stage(seed, 1, 2, plain()).state_dict() for seed in (5, 6))
    drawn = [name for name in mine if mine[name].ndim > 1]
    assert not any(torch.equal(mine[name], other[name]) for name in drawn)
    values = [mine[name].flatten()[:8].tolist() for name in drawn]
    assert len(values) == len({tuple(value) for value in values})


def test_weights_are_drawn_as_the_library_draws_them(builder):
    """By the standard deviation of each matrix; GPT-2's depend on the whole model's depth."""
    theirs = builder.build(1).state_dict()
    for stage in stages_of(builder, 3):
        for name, value in stage.state_dict().items():
            expected = theirs[stage.full_name(name)].std()
            assert abs(value.std() - expected) <= 0.15 * expected, name


def test_the_global_generator_is_left_alone(builder):
    state = torch.get_rng_state()
    stages_of(builder, 2)
    assert torch.equal(state, torch.get_rng_state())


def test_a_tied_head_begins_with_the_embeddings_bits_and_has_its_own_memory():
    first, _, last = stages_of(builder_of(MODELS["gpt2"]), 3)
    assert torch.equal(first.embedding.weight, last.head.weight)
    assert first.embedding.weight.data_ptr() != last.head.weight.data_ptr()
    only = builder_of(MODELS["gpt2"]).stage(5, 0, 1, plain())
    assert only.embedding.weight is only.head.weight


def test_a_stage_holds_its_own_parts_and_says_which(builder):
    plan = builder.plan(3)
    stages = stages_of(builder, 3)
    assert [len(stage.blocks) for stage in stages] == [len(part) for part in plan.layers]
    assert [stage.embedding is not None for stage in stages] == [True, False, False]
    assert [stage.head is not None for stage in stages] == [False, False, True]
    assert [(stage.first, stage.last) for stage in stages] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    names = [stage.full_name(name) for stage in stages for name in stage.state_dict()]
    assert len(names) == len(set(names))
    assert {(stage.width, stage.vocab) for stage in stages} == {(plan.width, plan.vocab)}
    learned = [stage.positions is not None for stage in stages]
    assert learned == [stages[0].body.config.model_type == "gpt2", False, False]


def test_memory_is_taken_for_the_stage_alone():
    """Embedding and head have 41 thousand million values each; a middle stage, half a million."""
    huge = LLAMA | {"vocab_size": 10_000_000, "hidden_size": 4096, "head_dim": 2}
    builder = builder_of({"architecture": "llama", "config": huge | {"num_hidden_layers": 3}})
    stage = builder.stage(5, 1, 3, plain())
    assert not any(tensor.is_meta for tensor in (*stage.parameters(), *stage.buffers()))
    assert sum(tensor.numel() for tensor in stage.parameters()) < 1_000_000
    assert builder.plan(3).costs[2] > 40_000 * builder.plan(3).costs[1]


def test_the_head_counts_as_the_matrix_that_it_is():
    wide = LLAMA | {"num_hidden_layers": 8, "vocab_size": 700}
    lengths = [
        len(part) for part in builder_of({"architecture": "llama", "config": wide}).plan(2).layers
    ]
    assert lengths[0] > lengths[1]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", LLAMA),
        ("qwen3", LLAMA | {"head_dim": 8}),
        ("gpt2", GPT2),
        ("gpt_neox", {key: LLAMA[key] for key in LLAMA if key != "num_key_value_heads"}),
        ("mistral", LLAMA),
    ],
)
def test_a_block_whose_writers_are_zero_passes_on_what_comes(kind, config):
    stage = builder_of({"architecture": kind, "config": config}).stage(5, 1, 3, plain()).eval()
    writers = stage.writers()
    assert len(writers) == 2 * len(stage.blocks)
    for module, axis in writers:
        assert module.weight.shape[axis] == stage.width
        module.weight.data.zero_()
        if module.bias is not None:
            module.bias.data.zero_()
    received = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(stage(torch.zeros(1, 3, dtype=torch.int64), received), received)


def test_norms_are_those_that_read_the_residual_stream(builder):
    stages = stages_of(builder, 2)
    assert [len(stage.norms()) - 2 * len(stage.blocks) for stage in stages] == [0, 1]


def test_a_mixture_of_experts_is_cut_but_names_no_writers(ids):
    builder = builder_of({"architecture": "mixtral", "config": LLAMA | {"num_local_experts": 2}})
    stages = stages_of(builder, 2)
    assert chained(stages, ids).shape == (2, 9, 257)
    with pytest.raises(ModelError, match="'mlp' of a block ends in no linear map"):
        stages[0].writers()


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("opt", {"num_hidden_layers": 2}, "is no embedding, chain of blocks and head"),
        ("mamba", {"num_hidden_layers": 2}, "is no embedding, chain of blocks and head"),
        ("granite", LLAMA | {"embedding_multiplier": 2.0}, "changes activations outside"),
        ("gptj", {"n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8}, "more than activ"),
        ("llama", LLAMA | {"vocab_size": 100}, "below the 257"),
    ],
)
def test_a_model_that_cannot_be_cut_is_refused_in_one_line(kind, config, message):
    with pytest.raises(ModelError, match=message) as caught:
        builder_of({"architecture": kind, "config": config}).stage(5, 0, 2, plain())
    assert "\n" not in str(caught.value)


def test_more_stages_than_blocks_are_refused_before_anything_is_built(builder):
    for refused in (lambda: builder.stage(5, 0, 5, plain()), lambda: builder.plan(5)):
        with pytest.raises(ModelError, match=r"pipeline\.stages = 5: the model has 4 blocks"):
            refused()


def test_a_boundarys_modules_stand_at_the_cuts_and_are_trained(builder, ids):
    boundary = Narrowing()
    stages = stages_of(builder, 3, boundary=boundary)
    assert boundary.constrained == [(stage, stage.first, stage.last) for stage in stages]
    assert stages[0](ids).shape == (2, 9, 8)
    found = gradients(stages, ids)
    ours = {name: grad for name, grad in found.items() if name.startswith("boundary.")}
    assert sorted({name.removesuffix(".weight").removesuffix(".bias") for name in ours}) == [
        "boundary.0.receiver.map",
        "boundary.0.sender.map",
        "boundary.1.receiver.map",
        "boundary.1.sender.map",
    ]
    assert all(grad.abs().max() > 0 for grad in ours.values())


def test_a_boundarys_modules_are_drawn_from_the_seed_of_their_cut(builder):
    first, second, other = (
        stages_of(builder, 3, seed=seed, boundary=Narrowing())[1].state_dict() for seed in (5, 5, 6)
    )
    for name in [name for name in first if name.startswith("boundary.")]:
        assert torch.equal(first[name], second[name])
        assert not torch.equal(first[name], other[name])


def test_a_single_stage_has_no_boundary(builder):
    boundary = Narrowing()
    stage = builder.stage(5, 0, 1, boundary)
    assert not list(stage.boundary.children())
    assert boundary.constrained == []
