"""What every codec keeps, whatever it loses."""

from __future__ import annotations

import pytest
import torch

from swarmnet import registry
from swarmnet.errors import PayloadError

VARIANTS = [(name, {}) for name in registry.names("codec")] + [
    ("raw", {"double": True}),
    ("int8", {"block": 17}),
]
DTYPES = [torch.float32, torch.float64]
SIZES = [1, 2, 7, 255, 256, 257, 65_535, 65_537, 70_001]


@pytest.fixture(params=VARIANTS, ids=str)
def codec(request):
    name, options = request.param
    cls = registry.find("codec", name)
    return cls(cls.Config(**options))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(numel, dtype=torch.float32):
    return torch.randn(numel, generator=generator(1), dtype=dtype)


def decoded(codec, payload, like):
    values = codec.decode(memoryview(payload), torch.full_like(like, 7.0))
    assert (values.dtype, values.shape) == (like.dtype, like.shape)
    return values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("numel", SIZES)
def test_round_trip_is_close_and_of_the_promised_size(codec, numel, dtype):
    vector = normal(numel, dtype)
    payload = codec.encode(vector, generator())
    assert memoryview(payload).nbytes == codec.nbytes(numel)
    out = decoded(codec, payload, vector)
    assert out.dtype == dtype
    assert (out - vector).abs().max() <= vector.abs().max() / 127 * 1.001


def test_encoding_leaves_the_vector_alone(codec):
    vector = normal(1000)
    before = vector.clone()
    codec.encode(vector, generator())
    assert torch.equal(vector, before)


def test_randomness_comes_from_the_generator_alone(codec):
    vector = normal(1000)
    torch.manual_seed(1)
    first = bytes(codec.encode(vector, generator(3)))
    torch.manual_seed(2)
    assert bytes(codec.encode(vector, generator(3))) == first


def test_decoding_is_a_function_of_the_bytes(codec):
    vector = normal(1000)
    payload = codec.encode(vector, generator())
    assert torch.equal(decoded(codec, payload, vector), decoded(codec, payload, vector))


def test_a_parameter_that_wants_gradients_can_be_encoded(codec):
    vector = normal(300).requires_grad_()
    assert memoryview(codec.encode(vector, generator())).nbytes == codec.nbytes(300)


def test_a_strided_vector_can_be_encoded(codec):
    vector = normal(600)[::2]
    out = decoded(codec, codec.encode(vector, generator()), torch.empty(300))
    assert (out - vector).abs().max() <= vector.abs().max() / 127 * 1.001


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-39, -3e-38, 1e30])
def test_zeros_and_extremes_stay_finite_and_bounded(codec, value):
    vector = torch.full((300,), value)
    out = decoded(codec, codec.encode(vector, generator()), vector)
    assert (out.double() - value).abs().max() <= abs(value) / 127 + 127 * 1.2e-38


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_read_only_and_unaligned_payloads_decode_alike(codec, shift):
    vector = normal(301)
    payload = codec.encode(vector, generator())
    expected = decoded(codec, payload, vector)
    padded = bytes(shift) + bytes(payload)
    assert torch.equal(decoded(codec, memoryview(padded)[shift:], vector), expected)
    assert torch.equal(decoded(codec, memoryview(bytearray(padded))[shift:], vector), expected)


@pytest.mark.parametrize("cut", [0, 1, -1, -4])
def test_a_payload_of_another_size_is_refused_before_any_write(codec, cut):
    vector = normal(300)
    payload = bytes(codec.encode(vector, generator()))
    wrong = payload[:cut] if cut < 0 else payload[: len(payload) * cut] + b"\0"
    out = torch.full((300,), 7.0)
    with pytest.raises(PayloadError, match="bytes"):
        codec.decode(memoryview(wrong), out)
    assert (out == 7.0).all()


@pytest.mark.parametrize("numel", [1, 300, 70_001])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_before_any_write(codec, poison, numel):
    for place in (0, numel // 2, numel - 1):
        vector = normal(numel)
        vector[place] = poison
        payload = codec.encode(vector, generator())
        out = torch.full((numel,), 7.0)
        with pytest.raises(PayloadError, match="range"):
            codec.decode(memoryview(payload), out)
        assert (out == 7.0).all()


def test_arbitrary_bytes_never_decode_to_what_is_not_finite(codec):
    source = generator(5)
    out = torch.full((40,), 7.0)
    for _ in range(200):
        junk = torch.randint(0, 256, (codec.nbytes(40),), generator=source, dtype=torch.uint8)
        try:
            values = codec.decode(junk.numpy().data, out)
        except PayloadError:
            continue
        assert values.isfinite().all()
