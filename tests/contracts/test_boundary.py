"""What every boundary keeps: sizes, refusals, gradients, and the same numbers on every peer."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from swarmnet import registry
from swarmnet.config import Choice
from swarmnet.errors import ConfigError, PayloadError
from tests.crossing import crossed

WIDTH, VOCAB = 32, 50
EXACT = {"name": "raw", "double": True}
CODECS = ["raw", "bf16", "int8"]
OPTIONS = {"subspace": {"k": 6}, "column_mask": {"keep": 0.3}}
NAMES = registry.names("boundary")


def build(name, codec="raw", **options):
    return Choice(name=name, codec=codec, **(OPTIONS.get(name, {}) | options)).build("boundary")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=CODECS)
def boundary(name, request):
    return build(name, request.param)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def some_ids(batch, length):
    return torch.randint(0, VOCAB, (batch, length), generator=generator(2))


def ends(boundary, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sender, receiver = boundary.sender(WIDTH, VOCAB), boundary.receiver(WIDTH, VOCAB)
    return sender.to(dtype), receiver.to(dtype)


def stream(boundary, ids, dtype=torch.float32):
    """Activations as a model that keeps to this boundary has them."""
    shape = (*ids.shape, boundary.features(WIDTH))
    return ends(boundary, dtype)[1](random(*shape, dtype=dtype), ids).detach()


def untouched(out):
    return bool((out == 7.0).all())


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 5), (3, 129)])
def test_a_payload_is_within_its_bound_and_comes_back_close(name, boundary, batch, length):
    values = random(batch, length, boundary.features(WIDTH))
    payload = memoryview(boundary.encode(values, generator()))
    assert payload.nbytes <= boundary.max_nbytes(batch * length, WIDTH)
    out = torch.full_like(values, 7.0)
    back = boundary.decode(payload, out)
    assert (back.shape, back.dtype) == (values.shape, values.dtype)
    sent = back != 0 if name == "column_mask" else torch.ones_like(back, dtype=torch.bool)
    assert (back - values)[sent].abs().max() <= values.abs().max() / 127 * 1.001


def test_strided_values_and_values_with_gradients_can_be_encoded(boundary):
    values = random(4, boundary.features(WIDTH), 3).transpose(1, 2).requires_grad_()
    out = torch.empty(values.shape)
    straight = boundary.encode(values.detach().contiguous(), generator())
    assert bytes(boundary.encode(values, generator())) == bytes(straight)
    boundary.decode(memoryview(straight), out)


def test_zeros_come_back_as_zeros(boundary):
    values = torch.zeros(2, 3, boundary.features(WIDTH))
    payload = memoryview(boundary.encode(values, generator()))
    assert torch.equal(boundary.decode(payload, torch.full_like(values, 7.0)), values)


@pytest.mark.parametrize("change", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: b""])
def test_a_payload_of_another_size_is_refused_before_any_write(boundary, change):
    values = random(2, 3, boundary.features(WIDTH))
    payload = change(bytes(boundary.encode(values, generator())))
    out = torch.full_like(values, 7.0)
    with pytest.raises(PayloadError, match="bytes"):
        boundary.decode(memoryview(payload), out)
    assert untouched(out)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_before_any_write(boundary, poison):
    values = random(2, 3, boundary.features(WIDTH))
    values[1, 2, -1] = poison
    payload = memoryview(boundary.encode(values, generator()))
    out = torch.full_like(values, 7.0)
    with pytest.raises(PayloadError):
        boundary.decode(payload, out)
    assert untouched(out)


def test_arbitrary_bytes_never_decode_to_what_is_not_finite(boundary):
    size = boundary.max_nbytes(6, WIDTH)
    for seed in range(100):
        junk = torch.randint(0, 256, (size,), generator=generator(seed), dtype=torch.uint8)
        out = torch.full((2, 3, boundary.features(WIDTH)), 7.0)
        try:
            values = boundary.decode(junk.numpy().data, out)
        except PayloadError:
            assert untouched(out)
        else:
            assert values.isfinite().all()


def test_gradients_across_the_cut_pass_finite_differences(name):
    boundary = build(name, EXACT, **({"keep": 1.0} if name == "column_mask" else {}))
    sender, receiver = ends(boundary, torch.float64)
    ids = some_ids(2, 3)
    hidden = stream(boundary, ids, torch.float64).requires_grad_()

    def through(hidden, *_parameters):
        return receiver(crossed(boundary, sender(hidden, ids), generator()), ids)

    parameters = [*sender.parameters(), *receiver.parameters()]
    assert torch.autograd.gradcheck(through, (hidden, *parameters), eps=1e-6, atol=1e-6)


def test_one_process_computes_what_two_peers_do(boundary):
    sender, receiver = ends(boundary)
    ids, upstream = some_ids(2, 3), random(2, 3, WIDTH, seed=5)
    hidden = stream(boundary, ids).requires_grad_()
    source = generator(9)
    result = receiver(crossed(boundary, sender(hidden, ids), source), ids)
    (together,) = torch.autograd.grad(result, hidden, upstream)

    source = generator(9)
    sent = sender(hidden, ids)
    payload = bytes(boundary.encode(sent, source))
    arrived = boundary.decode(memoryview(payload), torch.empty_like(sent)).clone().requires_grad_()
    apart = receiver(arrived, ids)
    (gradient,) = torch.autograd.grad(apart, arrived, upstream)
    payload = bytes(boundary.encode(gradient, source))
    back = boundary.decode(memoryview(payload), torch.empty_like(sent))
    assert torch.equal(apart, result)
    assert torch.equal(torch.autograd.grad(sent, hidden, back)[0], together)


@pytest.mark.parametrize(("codec", "bound"), [("bf16", 0.02), ("int8", 0.05)])
def test_coding_counts_as_the_identity_when_gradients_are_taken(name, codec, bound):
    ids, upstream = some_ids(4, 16), random(4, 16, WIDTH, seed=5)
    found = []
    for form in ("raw", codec):
        boundary = build(name, form)
        sender, receiver = ends(boundary)
        hidden = stream(boundary, ids).requires_grad_()
        result = receiver(crossed(boundary, sender(hidden, ids), generator()), ids)
        found.append(torch.autograd.grad(result, hidden, upstream)[0])
    assert (found[1] - found[0]).norm() <= bound * found[0].norm()


def test_peers_with_one_config_make_the_same_ends(name):
    first, second = ends(build(name)), ends(build(name))
    ids = some_ids(2, 3)
    hidden = stream(build(name), ids)
    sent = first[0](hidden, ids)
    assert torch.equal(second[0](hidden, ids), sent)
    assert torch.equal(second[1](sent, ids), first[1](sent, ids))


def test_ends_have_a_state_that_another_process_can_load(name):
    boundary = build(name)
    for end, other in zip(ends(boundary), ends(build(name)), strict=True):
        other.load_state_dict(end.state_dict())
        assert all(value.is_floating_point() for value in end.state_dict().values())


@pytest.mark.parametrize("codec", [{"name": "int9"}, {"name": "int8", "block": 1}])
def test_a_codec_that_is_none_is_refused_at_once(name, codec):
    with pytest.raises((ConfigError, ValidationError)):
        build(name, codec)


@pytest.mark.parametrize(
    ("name", "options", "width"),
    [
        ("bottleneck", {"c": 3}, 32),
        ("bottleneck", {"c": 32}, 32),
        ("maxout", {"c": 5}, 32),
        ("subspace", {"k": 33}, 32),
    ],
)
def test_a_width_that_does_not_fit_is_refused(name, options, width):
    boundary = build(name, **options)
    for question in (
        lambda: boundary.features(width),
        lambda: boundary.sender(width, VOCAB),
        lambda: boundary.receiver(width, VOCAB),
    ):
        with pytest.raises(ConfigError):
            question()
