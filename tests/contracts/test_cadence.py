"""What every cadence keeps: whoever offers also accepts, and every replica meets some day."""

from __future__ import annotations

import pytest

from swarmnet import registry
from swarmnet.cadence import Window
from swarmnet.cadence.by_rate import ByRate
from swarmnet.cadence.every_h import EveryH


@pytest.fixture(params=registry.names("cadence"))
def cadence(request):
    cls = registry.find("cadence", request.param)
    return cls(cls.Config())


STEP_TIMES = [0.0, 1e-6, 0.07, 1.0, 3600.0]


def windows(progress, step_s):
    return [
        Window(since, total, progress, step_s)
        for total in range(0, 200, 7)
        for since in range(total)
    ]


@pytest.mark.parametrize("step_s", STEP_TIMES)
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_who_offers_also_accepts(cadence, progress, step_s):
    assert all(cadence.willing(w) or not cadence.ready(w) for w in windows(progress, step_s))


@pytest.mark.parametrize("step_s", STEP_TIMES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_a_meeting_comes_some_day_and_stays_due(cadence, progress, step_s):
    for rule in (cadence.ready, cadence.willing):
        due = [rule(Window(steps, steps, progress, step_s)) for steps in range(10_000)]
        assert due[-1]
        assert due == sorted(due)


@pytest.mark.parametrize("step_s", STEP_TIMES)
def test_no_meeting_before_the_first_step(cadence, step_s):
    assert not cadence.ready(Window(0, 0, 0.0, step_s))
    assert not cadence.willing(Window(0, 0, 0.0, step_s))


@pytest.mark.parametrize("total", [1, 5000])
def test_what_is_due_before_the_own_rate_is_known_stays_due(cadence, total):
    """A newcomer's first meeting is due before its first step, and its rate is known after it."""
    since = next(s for s in range(1, 10_001) if cadence.ready(Window(s, 10_000 + total, 0.0)))
    for step_s in STEP_TIMES:
        assert cadence.ready(Window(since, 10_000 + total, 0.0, step_s))


@pytest.mark.parametrize(("h", "willing_at"), [(1, 1), (2, 1), (5, 3), (20, 10)])
def test_every_h_offers_at_h_and_accepts_from_half(h, willing_at):
    cadence = EveryH(EveryH.Config(h=h))
    since = range(3 * h)
    assert next(s for s in since if cadence.ready(Window(s, 999, 0.5))) == h
    assert next(s for s in since if cadence.willing(Window(s, 999, 0.5))) == willing_at


@pytest.mark.parametrize(
    "options", [{"h": 0}, {"h": -1}, {"begin_at": -0.1}, {"begin_at": 1.0}, {"every": 3}]
)
def test_every_h_refuses_what_cannot_be(options):
    with pytest.raises(ValueError, match="validation error"):
        EveryH.Config(**options)


def by_rate(**options):
    return ByRate(ByRate.Config(**options))


def first(rule, step_s):
    return next(s for s in range(10_000) if rule(Window(s, 9999, 0.5, step_s)))


@pytest.mark.parametrize(
    ("step_s", "h"),
    [(0.0, 40), (0.01, 40), (0.25, 40), (0.26, 38), (0.5, 20), (3.0, 3), (4.9, 2), (6.0, 2)],
)
def test_by_rate_fits_its_steps_into_the_round_within_the_bounds(step_s, h):
    cadence = by_rate(round_s=10.0, h_min=2, h_max=40)
    assert first(cadence.ready, step_s) == h
    assert first(cadence.willing, step_s) == (h + 1) // 2


@pytest.mark.parametrize("step_s", [10.0, 10.1, 1e9])
def test_by_rate_a_step_that_outlasts_the_round_is_a_window_of_its_own(step_s):
    cadence = by_rate(round_s=10.0)
    assert first(cadence.ready, step_s) == first(cadence.willing, step_s) == 1


def test_by_rate_machines_of_any_speed_are_ripe_at_about_the_same_time():
    cadence = by_rate(round_s=10.0, h_max=1000)
    for step_s in (0.013, 0.1, 0.33, 1.7, 4.0):
        took = step_s * first(cadence.ready, step_s)
        assert 10.0 - step_s < took <= 10.0


@pytest.mark.parametrize("rule", [EveryH, ByRate])
def test_the_first_meeting_is_a_matter_of_the_run_and_not_of_the_own_steps(rule):
    """A slow machine would spend half of the run in a first phase that is counted in own steps."""
    cadence = rule(rule.Config(begin_at=0.1))
    for meets in (cadence.ready, cadence.willing):
        assert not meets(Window(10_000, 10_000, 0.099, 1.0))
        assert meets(Window(100, 100, 0.1, 1.0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"round_s": 0.0}, "greater than 0"),
        ({"round_s": float("inf")}, "finite"),
        ({"h_min": 0}, "greater than 0"),
        ({"h_min": 9, "h_max": 8}, "h_min = 9 is above h_max = 8"),
        ({"h_max": 10_001}, "less than or equal"),
        ({"h": 3}, "not permitted"),
    ],
)
def test_by_rate_refuses_what_cannot_be(options, says):
    with pytest.raises(ValueError, match=says):
        ByRate.Config(**options)
