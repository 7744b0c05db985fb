"""What each boundary puts on the wire, to the byte, and what a strange value costs there."""

import pytest
import torch

from swarmnet.boundary.bottleneck import Bottleneck
from swarmnet.boundary.column_mask import ColumnMask
from swarmnet.boundary.maxout import Maxout
from swarmnet.boundary.plain import Plain
from swarmnet.boundary.subspace import Subspace
from swarmnet.errors import PayloadError

TOKENS = 64


def generator():
    return torch.Generator().manual_seed(0)


def build(cls, codec="raw", **options):
    return cls(cls.Config(codec=codec, **options))


def encoded(boundary, values):
    return memoryview(boundary.encode(values, generator()))


def decoded(boundary, payload, like):
    return boundary.decode(payload, torch.full_like(like, 7.0))


@pytest.mark.parametrize(
    ("boundary", "width", "features", "nbytes"),
    [
        (build(Plain), 256, 256, 4 * 256 * TOKENS),
        (build(Plain, "bf16"), 256, 256, 2 * 256 * TOKENS),
        (build(Plain, "int8"), 256, 256, (256 + 4) * TOKENS),
        (build(Bottleneck, c=4), 256, 64, 4 * 64 * TOKENS),
        (build(Bottleneck, "int8", c=2), 1024, 512, (512 + 8) * TOKENS),
        (build(Maxout, c=4), 256, 64, 4 * 64 * TOKENS),
        (build(Subspace, k=16), 256, 16, 4 * 16 * TOKENS),
        (build(Subspace, "int8", k=10), 256, 10, 10 * TOKENS + 4 * 3),
        (build(Subspace, k=40), 4096, 40, 4 * 40 * TOKENS),
        (build(ColumnMask, keep=0.1), 256, 256, 32 + 4 * 26 * TOKENS),
        (build(ColumnMask, "int8", keep=0.1), 260, 260, 33 + 26 * TOKENS + 4 * 7),
    ],
)
def test_a_boundary_puts_exactly_its_features_on_the_wire(boundary, width, features, nbytes):
    assert boundary.features(width) == features
    assert boundary.max_nbytes(TOKENS, width) == nbytes
    assert encoded(boundary, torch.randn(2, TOKENS // 2, features)).nbytes == nbytes


@pytest.mark.parametrize("cls", [Bottleneck, Maxout])
def test_a_narrow_place_hands_over_the_promised_features(cls):
    sender, receiver = (end(32, 50) for end in (build(cls).sender, build(cls).receiver))
    ids = torch.zeros(2, 3, dtype=torch.int64)
    sent = sender(torch.randn(2, 3, 32), ids)
    assert sent.shape == (2, 3, 8)
    assert receiver(sent, ids).shape == (2, 3, 32)


def test_maxout_sends_the_largest_of_each_adjacent_group():
    sender = build(Maxout, c=4).sender(8, 50)
    hidden = torch.tensor([[[5.0, 1, 2, 3, -1, -2, 9, 0]]])
    normed = sender.norm_in(hidden)
    expected = sender.norm_out(torch.stack((normed[..., 0], normed[..., 6]), dim=-1))
    assert torch.equal(sender(hidden, torch.zeros(1, 1, dtype=torch.int64)), expected)


def test_an_outlier_costs_precision_in_its_own_block_only():
    boundary = build(Plain, {"name": "int8", "block": 32})
    values = torch.randn(1, 8, 32, generator=generator())
    values[0, 3, 5] = 1e6
    error = (decoded(boundary, encoded(boundary, values), values) - values).abs()
    clean = torch.tensor([row for row in range(8) if row != 3])
    bound = values.abs().amax(-1) / 127 * 1.001
    assert (error[0, clean] <= bound[0, clean, None]).all()
    assert error[0, 3].max() > 0.5


def test_the_kept_columns_are_the_strongest_over_batch_and_sequence():
    boundary = build(ColumnMask, keep=0.25)
    values = torch.randn(2, 5, 8) * torch.tensor([1.0, 9, 2, 3, 8, 1, 1, 0])
    back = decoded(boundary, encoded(boundary, values), values)
    assert torch.equal(back[..., [1, 4]], values[..., [1, 4]])
    assert (back[..., [0, 2, 3, 5, 6, 7]] == 0).all()


def test_a_gradient_chooses_its_own_columns():
    boundary = build(ColumnMask, keep=0.25)
    forward, backward = torch.ones(1, 2, 8), torch.ones(1, 2, 8)
    forward[..., :2], backward[..., 2:4] = 5.0, 5.0
    for values, there in ((forward, [0, 1]), (backward, [2, 3])):
        back = decoded(boundary, encoded(boundary, values), values)
        assert back.nonzero()[:, -1].unique().tolist() == there


@pytest.mark.parametrize("columns", [[], [0], [0, 1, 2], [0, 7], [6, 7]])
def test_a_mask_of_other_columns_than_it_can_have_is_refused(columns):
    boundary = build(ColumnMask, keep=0.4)  # 2 of 6
    values = torch.randn(1, 2, 6)
    payload = bytearray(encoded(boundary, values))
    payload[0] = sum(1 << column for column in columns)
    out = torch.full_like(values, 7.0)
    with pytest.raises(PayloadError, match="columns"):
        boundary.decode(memoryview(payload), out)
    assert (out == 7.0).all()
