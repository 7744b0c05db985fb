"""What the events say about how much of the text was read, and how much of it twice."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from peers.coverage import coverage
from peers.reading import LOOK_S, FellowReaders, furthest, told
from swarmnet.events import BlocksRead
from swarmnet.sharing import BlockRead, Span
from tests.unit.synthetic import record

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("reading")


def churned(bench: Any, sharing: str, life_s: float) -> dict[str, float]:
    args = Namespace(peers=6, minutes=10.0, tokens=2_000_000, spread=2.0, life_s=life_s, seed=3)
    swarm = bench.Swarm(sharing, args)
    swarm.run()
    return swarm.figures()


def test_peers_that_stay_read_nothing_twice(bench: Any) -> None:
    figures = churned(bench, "rendezvous", 0.0)
    assert figures["epochs"] > 3
    assert figures["duplication"] == 0
    assert figures["coverage_first"] == 1


def test_under_churn_an_epoch_is_covered_and_little_is_read_twice(bench: Any) -> None:
    figures = churned(bench, "rendezvous", 200.0)
    assert figures == churned(bench, "rendezvous", 200.0)
    assert figures["coverage_first"] > 0.95
    assert figures["duplication"] < 0.1
    assert figures["spread"] < churned(bench, "independent", 200.0)["spread"] / 1.5


def lines(*reads: tuple[int, list[int]]) -> list[dict]:
    return [record(0.0, f"w-{i}", BlocksRead(e, blocks, 10)) for i, (e, blocks) in enumerate(reads)]


def test_a_run_that_tells_of_no_blocks_has_no_figures() -> None:
    assert coverage([]) is None


def test_within_the_first_epoch() -> None:
    figures = coverage(lines((0, [1, 2]), (0, [3]), (0, [2])))
    assert figures["epochs"] == pytest.approx(0.4)
    assert figures["coverage"] == pytest.approx(0.3)
    assert figures["duplication"] == pytest.approx(0.25)
    assert figures["blocks"] == 10


def test_an_epoch_that_all_have_read_once_is_covered() -> None:
    figures = coverage(lines((0, list(range(5))), (0, list(range(5, 10))), (1, [4])))
    assert figures["epochs"] == pytest.approx(1.1)
    assert figures["duplication"] == 0
    assert figures["coverage"] == pytest.approx(0.1)
    assert figures["by_epoch"] == [
        {"epoch": 0, "coverage": 1.0, "duplication": 0.0},
        {"epoch": 1, "coverage": 0.1, "duplication": 0.0},
    ]


def test_finished_blocks_become_one_event_an_epoch() -> None:
    reads = [BlockRead(1, 4, 10), BlockRead(0, 9, 10), BlockRead(1, 2, 10)]
    assert list(told(reads)) == [BlocksRead(0, [9], 10), BlocksRead(1, [2, 4], 10)]
    assert list(told([])) == []


@pytest.mark.parametrize(
    ("places", "place"), [([], 0), ([5], 5), ([5, 9], 9), ([5, 9, 7], 7), ([3, 4, 2**60, 2], 4)]
)
def test_nobody_alone_sends_a_newcomer_astray(places: list[int], place: int) -> None:
    assert furthest({f"p-{i}": Span(0, read) for i, read in enumerate(places)}) == place


def test_the_view_is_looked_up_once_a_second() -> None:
    class Link:
        looks = 0

        def readers(self, role: str) -> dict[str, Span]:
            self.looks += 1
            return {role: Span(0, self.looks)}

    now = [0.0]
    link = Link()
    fellows = FellowReaders(link, "worker", lambda: now[0])
    assert fellows.view() == fellows.view() == {"worker": Span(0, 1)}
    now[0] = LOOK_S
    assert fellows.view() == {"worker": Span(0, 2)}
