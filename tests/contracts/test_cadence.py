"""What every cadence keeps: whoever offers also accepts, and every replica meets some day."""

from __future__ import annotations

import pytest

from swarmnet import registry
from swarmnet.cadence import Window
from swarmnet.cadence.every_h import EveryH


@pytest.fixture(params=registry.names("cadence"))
def cadence(request):
    cls = registry.find("cadence", request.param)
    return cls(cls.Config())


def windows(progress):
    return [Window(since, total, progress) for total in range(0, 200, 7) for since in range(total)]


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_who_offers_also_accepts(cadence, progress):
    assert all(cadence.willing(w) or not cadence.ready(w) for w in windows(progress))


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_a_meeting_comes_some_day_and_stays_due(cadence, progress):
    ready = [cadence.ready(Window(steps, steps, progress)) for steps in range(10_000)]
    assert ready[-1]
    assert ready == sorted(ready)


def test_no_meeting_before_the_first_step(cadence):
    assert not cadence.ready(Window(0, 0, 0.0))
    assert not cadence.willing(Window(0, 0, 0.0))


@pytest.mark.parametrize(("h", "willing_at"), [(1, 1), (2, 1), (5, 3), (20, 10)])
def test_every_h_offers_at_h_and_accepts_from_half(h, willing_at):
    cadence = EveryH(EveryH.Config(h=h))
    since = range(3 * h)
    assert next(s for s in since if cadence.ready(Window(s, 999, 0.5))) == h
    assert next(s for s in since if cadence.willing(Window(s, 999, 0.5))) == willing_at


def test_every_h_skips_the_first_steps():
    cadence = EveryH(EveryH.Config(h=2, skip_first=50))
    assert not cadence.ready(Window(49, 49, 0.1))
    assert not cadence.willing(Window(49, 49, 0.1))
    assert cadence.ready(Window(50, 50, 0.1))


@pytest.mark.parametrize("options", [{"h": 0}, {"h": -1}, {"skip_first": -1}, {"every": 3}])
def test_every_h_refuses_what_cannot_be(options):
    with pytest.raises(ValueError, match="validation error"):
        EveryH.Config(**options)
