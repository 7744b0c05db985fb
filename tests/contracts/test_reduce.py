"""What every reduction keeps: one answer for the whole group, out of what counts."""

from __future__ import annotations

import pytest
import torch

from swarmnet import registry


@pytest.fixture(params=registry.names("reduce"))
def reduce(request):
    cls = registry.find("reduce", request.param)
    return cls(cls.Config())


def contributions(n, dtype=torch.float64):
    source = torch.Generator().manual_seed(n)
    return [torch.randn(50, generator=source, dtype=dtype) for _ in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_equal_contributions_are_the_answer(reduce, n):
    same = contributions(1)[0]
    answer = reduce.combine([same.clone() for _ in range(n)], [1.0] * n)
    torch.testing.assert_close(answer, same, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_every_member_gets_the_same_bits_and_keeps_its_inputs(reduce, n):
    given = contributions(n, torch.float32)
    before = [c.clone() for c in given]
    first = reduce.combine(given, [1.0] * n)
    assert torch.equal(reduce.combine([c.clone() for c in given], [1.0] * n), first)
    assert all(torch.equal(c, b) for c, b in zip(given, before, strict=True))
    assert all(first.data_ptr() != c.data_ptr() for c in given)
    assert first.dtype == torch.float32


def test_a_listener_does_not_reach_the_answer(reduce):
    given = contributions(3)
    with_listener = reduce.combine(given, [1.0, 0.0, 2.0])
    changed = [given[0], given[1] + 100, given[2]]
    torch.testing.assert_close(reduce.combine(changed, [1.0, 0.0, 2.0]), with_listener)


def test_finite_inputs_stay_finite(reduce):
    largest = torch.full((4,), torch.finfo(torch.float32).max)
    assert reduce.combine([largest, largest, largest], [1.0, 1.0, 1.0]).isfinite().all()


@pytest.mark.parametrize("weights", [[], [1.0], [0.0, 0.0], [2.0, -1.0], [1.0, 1.0, 1.0]])
def test_weights_that_do_not_fit_are_refused(reduce, weights):
    with pytest.raises(ValueError, match="weights"):
        reduce.combine(contributions(2), weights)


def test_no_contributions_are_refused(reduce):
    with pytest.raises(ValueError, match="weights"):
        reduce.combine([], [])


def test_the_mean_is_weighted():
    cls = registry.find("reduce", "mean")
    a, b, c = contributions(3)
    answer = cls(cls.Config()).combine([a, b, c], [1, 3, 4])
    torch.testing.assert_close(answer, (a + 3 * b + 4 * c) / 8, rtol=1e-14, atol=1e-14)
