from __future__ import annotations

from itertools import pairwise

import pytest

from swarmnet.config import Schedule
from swarmnet.train.schedule import rate

PLAIN = Schedule(warmup=0.1, final=0.2)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (-1.0, 0.0),
        (0.0, 0.0),
        (0.05, 1.5),
        (0.1, 3.0),
        (0.55, 3.0 * 0.6),
        (1.0, 3.0 * 0.2),
        (7.0, 3.0 * 0.2),
    ],
)
def test_values(progress: float, expected: float) -> None:
    assert rate(progress, 3.0, PLAIN) == pytest.approx(expected)


def test_rises_then_falls_without_a_jump() -> None:
    rates = [rate(i / 1000, 1.0, PLAIN) for i in range(1001)]
    top = rates.index(max(rates))
    assert top == 100
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert max(abs(a - b) for a, b in pairwise(rates)) <= 0.0101


def test_no_warmup_starts_at_the_peak() -> None:
    assert rate(0.0, 2.0, Schedule(warmup=0.0, final=0.0)) == 2.0
    assert rate(1.0, 2.0, Schedule(warmup=0.0, final=0.0)) == pytest.approx(0.0)
