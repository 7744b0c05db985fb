"""The backward pass in two parts gives torch's gradients, and W at any later time the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from swarmnet.train.flat import trainable_parameters
from swarmnet.train.passes import Arrival
from swarmnet.train.split import Sink, Spot, add_whole, split, spots
from swarmnet.train.stage import StageCore
from tests.unit.tiny_stage import LENGTH, WIDTH, Master, by_one_process, cores, model, texts

WIDE = 2 * WIDTH


class Mixed(nn.Module):
    """Every kind of layer that splits, some that do not, frozen and tied weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, WIDTH)
        self.padded = nn.Embedding(9, WIDTH, padding_idx=0)
        self.conv = Conv1D(WIDE, WIDTH)
        self.frozen = nn.Linear(WIDE, WIDE).requires_grad_(False)
        self.half_frozen = nn.Linear(WIDE, WIDE)
        self.half_frozen.weight.requires_grad_(False)
        self.norm = nn.LayerNorm(WIDE)
        self.back = nn.Linear(WIDE, WIDTH)
        self.head = nn.Linear(WIDTH, 9, bias=False)
        self.head.weight = self.embed.weight
        self.to(dtype)

    def forward(self, ids: Tensor, received: Tensor) -> Tensor:
        hidden = self.embed(ids) + self.padded(ids) + received
        wide = torch.tanh(self.half_frozen(self.frozen(self.conv(hidden))))
        return self.head(self.back(self.norm(wide)) + self.back(wide))


def mixed(dtype: torch.dtype) -> tuple[Mixed, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    module = Mixed(dtype)
    ids = torch.randint(0, 9, (3, LENGTH))
    received = torch.randn(3, LENGTH, WIDTH, dtype=dtype, requires_grad=True)
    seed = torch.randn(3, LENGTH, 9, dtype=dtype)
    return module, ids, received, seed


def in_two_parts(module: Mixed, ids: Tensor, received: Tensor, seed: Tensor) -> list[Tensor]:
    """[(B, T, f) gradient of what was received, (P,) sum of the weights' gradients]."""
    sink, places = Sink(), spots(module)
    split(module, sink)
    root = module(ids, received)
    with sink.collect() as products:
        first, *rest = torch.autograd.grad(root, (received, *places), seed, allow_unused=True)
    whole = zip(places.values(), rest, strict=True)
    products += [add_whole(spot, gradient) for spot, gradient in whole if gradient is not None]
    flat = torch.zeros(sum(p.numel() for p in places), dtype=received.dtype)
    for product in products:
        product(flat)
    assert not flat.requires_grad
    return [first, flat]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_both_parts_together_are_torchs_backward_pass(dtype: torch.dtype, bound: float) -> None:
    module, ids, received, seed = mixed(dtype)
    plain = copy.deepcopy(module)
    output = plain(ids, received)
    found = torch.autograd.grad(output, (received, *trainable_parameters(plain)), seed)
    expected = [found[0], torch.cat([gradient.flatten() for gradient in found[1:]])]
    for ours, theirs in zip(in_two_parts(module, ids, received, seed), expected, strict=True):
        assert float((ours - theirs).abs().max()) <= bound


def test_b_leaves_the_expensive_part_of_every_layer_that_is_known() -> None:
    module, ids, received, seed = mixed(torch.float64)
    sink = Sink()
    split(module, sink)
    root = module(ids, received)
    places = spots(module)
    with sink.collect() as products:
        found = torch.autograd.grad(root, tuple(places), seed, allow_unused=True)
    names = {parameter: name for name, parameter in module.named_parameters()}
    at_once = {names[p] for p, gradient in zip(places, found, strict=True) if gradient is not None}
    assert at_once == {"padded.weight", "norm.weight", "norm.bias"}
    # head and embedding, conv with its bias, half_frozen's bias, back twice with its bias
    assert len(products) == 2 + 2 + 1 + 4
    with sink.collect() as none:
        pass
    assert none == []


def test_only_the_module_that_was_split_is_changed() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    split(one, Sink())
    assert type(one) is type(two) is nn.Linear
    assert "forward" in vars(one)
    assert "forward" not in vars(two)
    assert one.state_dict().keys() == two.state_dict().keys()


def test_a_spot_is_a_view() -> None:
    flat = torch.zeros(10)
    Spot(slice(2, 8), torch.Size((2, 3))).of(flat)[1] = 1
    assert flat.tolist() == [0] * 5 + [1] * 3 + [0] * 2


def passes(core: StageCore, text: Tensor, sample: int) -> None:
    core.backward(core.forward([Arrival(sample, text)]), [None])


def test_weights_later_give_the_same_bits_as_weights_at_once() -> None:
    at_once, later = (cores(1, torch.float32)[0] for _ in range(2))
    for sample, text in enumerate(texts(5)):
        passes(at_once, text, sample)
        assert at_once.weigh() == (sample,)
        passes(later, text, sample)
    assert later.waiting == 5
    assert torch.equal(at_once.freeze().vector, later.freeze().vector)


def test_in_float32_sums_are_those_of_one_process_to_rounding() -> None:
    core, tokens = cores(1, torch.float32)[0], texts(5)
    for sample, text in enumerate(tokens):
        passes(core, text, sample)
    _, [exact] = by_one_process(model(1), tokens)
    # model() draws in float32 and widens, so both have the same weights.
    found = core.freeze().vector.double()
    assert float((found - exact).norm() / exact.norm()) < 1e-6


@pytest.mark.parametrize("sequences", [1, 4])
def test_batches_of_any_size_of_a_tied_model(sequences: int) -> None:
    def tied() -> nn.Module:
        module = model(1)[0]
        module.head.weight = module.embed.weight
        return module

    core, tokens = StageCore(Master(tied())), texts(1, sequences)
    passes(core, tokens[0], 0)
    _, [expected] = by_one_process([tied()], tokens)
    assert float((core.freeze().vector - expected).abs().max()) < 1e-12
