"""Whoever shares a text out gives windows of it, the same for the same history, and can go on."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from swarmnet import registry
from swarmnet.config import Choice
from swarmnet.errors import DataError
from swarmnet.sharing import ALONE, Ground, Sharing, Span

LENGTH = 16


def build(name: str, me: str = "ada", tokens: int = 5000, seed: int = 1) -> Sharing:
    return Choice(name=name).build("sharing", Ground(tokens, LENGTH, seed, me))


@pytest.fixture(params=registry.names("sharing"))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def views(seed: int) -> list[dict[str, Span]]:
    """A history in which peers come, go and move on."""
    source = random.Random(seed)
    names = [f"peer-{i}" for i in range(6)]
    history = []
    for step in range(200):
        if step % 20 == 0:
            live = source.sample(names, source.randrange(7))
        history.append({peer: Span(0, step) for peer in live})
    return history


def test_it_gives_windows_of_the_text(name: str) -> None:
    sharing = build(name)
    assert isinstance(sharing, Sharing)
    for count in (1, 7, 300):
        starts = sharing.next(count, ALONE)
        assert starts.shape == (count,)
        assert starts.dtype == np.int64
        assert starts.min() >= 0
        assert starts.max() + LENGTH < 5000


def test_the_same_history_gives_the_same_windows(name: str) -> None:
    one, other = build(name), build(name)
    for view in views(3):
        assert np.array_equal(one.next(8, view), other.next(8, view))


def test_seed_and_peer_decide(name: str) -> None:
    firsts = {
        tuple(build(name, me, seed=seed).next(8, ALONE))
        for me, seed in (("ada", 1), ("bob", 1), ("ada", 2))
    }
    assert len(firsts) == (3 if name == "independent" else 2)


def test_it_goes_on_from_a_position_with_the_very_next_window(name: str) -> None:
    sharing, history = build(name), views(4)
    for view in history[:90]:
        sharing.next(5, view)
    kept = json.loads(json.dumps(sharing.position()))
    restarted = build(name)
    restarted.resume(kept)
    assert restarted.span == sharing.span
    for view in history[90:]:
        assert np.array_equal(sharing.next(5, view), restarted.next(5, view))


def test_a_text_of_one_window_is_enough_and_less_is_refused(name: str) -> None:
    assert build(name, tokens=LENGTH + 1).next(3, ALONE).tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="window needs 17"):
        build(name, tokens=LENGTH)
