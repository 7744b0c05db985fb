"""What each codec promises beyond the contract of all."""

from __future__ import annotations

import struct

import pytest
import torch

from swarmnet.codec.bf16 import BFloat16
from swarmnet.codec.int8 import Int8
from swarmnet.codec.raw import Raw
from swarmnet.errors import PayloadError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def int8(block=256):
    return Int8(Int8.Config(block=block))


def round_trip(codec, vector, seed=0):
    payload = memoryview(codec.encode(vector, generator(seed)))
    return codec.decode(payload, torch.empty_like(vector))


def test_raw_lends_the_vector_and_copies_nothing():
    vector = torch.arange(4.0)
    payload = Raw(Raw.Config()).encode(vector, generator())
    assert payload.format == "B"
    vector[0] = 9.0
    assert payload == struct.pack("<4f", 9, 1, 2, 3)


@pytest.mark.parametrize(("double", "dtype"), [(False, torch.float32), (True, torch.float64)])
def test_raw_is_exact(double, dtype):
    vector = torch.randn(1000, generator=generator(), dtype=dtype)
    assert torch.equal(round_trip(Raw(Raw.Config(double=double)), vector), vector)


def test_raw_refuses_doubles_that_no_float_can_hold():
    payload = memoryview(struct.pack("<d", 1e300))
    codec = Raw(Raw.Config(double=True))
    codec.decode(payload, torch.empty(1, dtype=torch.float64))
    with pytest.raises(PayloadError):
        codec.decode(payload, torch.empty(1, dtype=torch.float32))


def test_bf16_rounds_to_the_nearest_even():
    one_ulp = 2.0**-7
    vector = torch.tensor([1 + one_ulp / 2, 1 + 3 * one_ulp / 2, 1 + one_ulp / 2 + 2**-20, -0.0])
    out = round_trip(BFloat16(BFloat16.Config()), vector)
    assert out.tolist() == [1.0, 1 + 2 * one_ulp, 1 + one_ulp, 0.0]
    assert out.signbit().tolist() == [False, False, False, True]


def test_int8_layout_is_scales_then_levels():
    vector = torch.tensor([127.0, -127.0, 64.0, 0.0, 0.0, 0.0, 0.0, 1.0, 254.0])
    payload = bytes(int8(block=8).encode(vector, generator()))
    assert payload == struct.pack("<2f9b", 1.0, 2.0, 127, -127, 64, 0, 0, 0, 0, 1, 127)


def test_int8_expects_the_value_itself():
    vector = torch.linspace(-1.0, 1.0, 256)
    total = torch.zeros(256, dtype=torch.float64)
    draws = 4000
    for seed in range(draws):
        total += round_trip(int8(), vector, seed)
    # A level is 1/127, its rounding error at most half of that as standard deviation.
    sigma = 0.5 / 127 / draws**0.5
    assert (total / draws - vector).abs().max() < 5 * sigma


def test_int8_errors_stay_below_one_level_and_outliers_in_their_block():
    vector = torch.randn(4 * 256, generator=generator(2))
    vector[300] = 1e4
    error = (round_trip(int8(), vector) - vector).abs().view(4, 256)
    level = vector.abs().view(4, 256).amax(1, keepdim=True) / 127
    assert (error <= level * 1.001).all()
    assert error[[0, 2, 3]].max() < 0.05


def test_int8_keeps_float64_outputs_exact_products():
    vector = torch.randn(256, generator=generator(3), dtype=torch.float64)
    out = round_trip(int8(), vector)
    scale = vector.float().abs().max().div(127).double()
    assert torch.equal((out / scale).round() * scale, out)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf"), 3.4e38])
def test_int8_refuses_scales_that_no_block_has(scale):
    payload = memoryview(struct.pack("<f8b", scale, *[127] * 8))
    out = torch.full((8,), 7.0)
    with pytest.raises(PayloadError):
        int8(block=8).decode(payload, out)
    assert (out == 7.0).all()
