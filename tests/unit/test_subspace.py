"""The subspace boundary's law: nothing of a model that keeps to it is lost at a cut."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from swarmnet.boundary._span import FrozenRows, Span
from swarmnet.boundary.subspace import Subspace
from swarmnet.errors import ModelError
from tests.crossing import crossed

WIDTH, K, VOCAB = 24, 6, 40
CUTS = (1, 2)  # blocks before each cut; one more behind the last one
LLAMA = {
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
}
DRY = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
GPT2 = {"n_embd": WIDTH, "n_layer": 3, "n_head": 2, "n_positions": 16, "tie_word_embeddings": False}
MODELS = {"llama": LLAMA, "gpt2": GPT2 | DRY}


@pytest.fixture
def boundary():
    return Subspace(Subspace.Config(k=K, codec={"name": "raw", "double": True}))


@pytest.fixture(params=sorted(MODELS))
def architecture(request):
    return request.param


def build(architecture, boundary, **options):
    config = AutoConfig.for_model(
        architecture, vocab_size=VOCAB, **(MODELS[architecture] | options)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    constrain(boundary, model)
    return model


def blocks(model):
    return model.model.layers if hasattr(model, "model") else model.transformer.h


def constrain(boundary, model):
    """As stages do: what lies before the last cut is bound, the rest is not."""
    embeddings = {
        name: child
        for name, child in model.base_model.named_children()
        if isinstance(child, nn.Embedding)
    }
    before = nn.ModuleList(blocks(model)[: CUTS[-1]])
    boundary.constrain(nn.ModuleDict(embeddings | {"blocks": before}), first=True, last=False)


def cut(model, boundary, lost):
    """Send what comes out of the blocks before each cut; note the share that does not arrive."""
    for position in CUTS:
        sender, receiver = boundary.sender(WIDTH, VOCAB), boundary.receiver(WIDTH, VOCAB)

        def across(_block, _inputs, hidden, ends=(sender, receiver)):
            sent = crossed(boundary, ends[0](hidden, model.ids), torch.Generator())
            arrived = ends[1](sent, model.ids)
            lost.append(float((hidden - arrived).detach().norm() / hidden.detach().norm()))
            return arrived

        blocks(model)[position - 1].register_forward_hook(across)
    return model


def loss(model, ids):
    model.ids = ids
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def train(model, boundary, steps, seed=0):
    source = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1, fused=True)
    for _ in range(steps):
        start = torch.randint(0, VOCAB, (2, 1), generator=source)
        loss(model, (start + 7 * torch.arange(8)) % VOCAB).backward()
        optimizer.step()
        optimizer.zero_grad()
        constrain(boundary, model)


def some_ids():
    return torch.randint(0, VOCAB, (3, 8), generator=torch.Generator().manual_seed(3))


def test_nothing_is_lost_at_any_cut_after_a_thousand_steps(architecture, boundary):
    lost = []
    model = cut(build(architecture, boundary), boundary, lost)
    before = loss(model, some_ids()).item()
    train(model, boundary, 1000)
    assert loss(model, (some_ids()[:, :1] + 7 * torch.arange(8)) % VOCAB).item() < 0.5 * before
    assert len(lost) == 2 * 1002
    assert max(lost) < 1e-6
    gains = [p for name, p in model.named_parameters() if "norm" in name or "ln_" in name]
    assert max((gain - 1).abs().max() for gain in gains) > 0.1


def test_gradients_of_bound_weights_are_those_of_the_uncut_model(architecture, boundary):
    whole = build(architecture, boundary)
    train(whole, boundary, 20)
    whole = whole.double()
    constrain(boundary, whole)
    parts = cut(copy.deepcopy(whole), boundary, [])
    losses = loss(whole, some_ids()), loss(parts, some_ids())
    assert abs(losses[0] - losses[1]) < 1e-12
    for value in losses:
        value.backward()
    span = Span(WIDTH, K, 0)
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        # A step is projected, so of a bound weight's gradient only what is in the span matters.
        expected, found = one.grad, other.grad
        if not torch.equal(expected, found) and (axis := stream_axis(name)) is not None:
            expected, found = (span.project(g.movedim(axis, -1)) for g in (expected, found))
        assert (expected - found).abs().max() < 1e-12, name


def stream_axis(name):
    """Which axis of a weight lies along the residual stream, if the weight writes into it."""
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return 0
    return -1 if any(part in name for part in ("c_proj", "embed_tokens", "wte", "wpe")) else None


def test_the_mean_of_two_replicas_stays_inside(architecture, boundary):
    replicas = [build(architecture, boundary) for _ in range(2)]
    for seed, replica in enumerate(replicas):
        train(replica, boundary, 30, seed)
    with torch.no_grad():
        for one, other in zip(*(replica.parameters() for replica in replicas), strict=True):
            one.lerp_(other, 0.5)
    lost = []
    loss(cut(replicas[0], boundary, lost), some_ids())
    assert max(lost) < 1e-6


@pytest.mark.parametrize("name", ["resid_pdrop", "embd_pdrop"])
def test_a_model_that_leaves_the_subspace_is_refused_at_the_cut(boundary, name):
    model = cut(build("gpt2", boundary, initializer_range=0.2, **{name: 0.1}), boundary, [])
    with pytest.raises(ModelError, match="outside the subspace"):
        loss(model, some_ids())


def test_what_is_not_finite_is_not_the_models_fault(boundary):
    hidden = torch.full((1, 2, WIDTH), float("nan"))
    ids = torch.zeros(1, 2, dtype=torch.int64)
    assert boundary.sender(WIDTH, VOCAB)(hidden, ids).isnan().all()


def test_the_last_stage_is_not_bound(boundary):
    stage = nn.ModuleDict({"down_proj": nn.Linear(8, WIDTH)})
    before = copy.deepcopy(stage.state_dict())
    boundary.constrain(stage, first=False, last=True)
    assert all(torch.equal(value, before[name]) for name, value in stage.state_dict().items())


@pytest.mark.parametrize(("width", "k"), [(1, 1), (5, 3), (24, 24), (256, 16), (4096, 40)])
def test_the_basis_is_orthonormal(width, k):
    basis = Span(width, k, 0).matrix(torch.empty(0, dtype=torch.float64))
    assert basis.shape == (width, k)
    assert (basis.T @ basis - torch.eye(k, dtype=torch.float64)).abs().max() < 1e-14


def test_the_basis_is_spread_over_all_features():
    rows = Span(256, 16, 0).matrix(torch.empty(0)).square().sum(1) * 256 / 16
    assert 0.1 < rows.min() < rows.max() < 4


def test_every_machine_makes_the_same_bits():
    basis = Span(24, 6, 7).matrix(torch.empty(0, dtype=torch.float64))
    rows = FrozenRows((40, 24), 0.02, 7).all(torch.empty(0))
    found = [hashlib.sha256(t.numpy().tobytes()).hexdigest()[:16] for t in (basis, rows)]
    assert found == ["0e891a873e070305", "6bb8489b13d3ceaa"]


def test_seeds_make_other_bases_and_rows():
    like = torch.empty(0)
    assert not torch.equal(Span(24, 6, 0).matrix(like), Span(24, 6, 1).matrix(like))
    first, second = (FrozenRows((40, 24), 0.02, seed).all(like) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_the_frozen_embedding_has_the_promised_spread():
    frozen = FrozenRows((257, 256), 0.02, 0)
    values = frozen.all(torch.empty(0))
    assert abs(values.mean()) < 1e-3
    assert abs(values.std() - 0.02) < 1e-3
    ids = torch.tensor([[0, 256], [3, 3]])
    assert torch.equal(frozen.rows(ids, torch.empty(0)), values[ids])


def test_copies_of_a_stage_share_what_never_changes(boundary):
    sender = boundary.sender(WIDTH, VOCAB)
    assert copy.deepcopy(sender)._span is sender._span
    assert copy.deepcopy(sender)._frozen is sender._frozen
