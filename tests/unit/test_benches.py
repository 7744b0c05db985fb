"""Benchmarks are run by hand and rarely: what they import must exist all the same."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "bench"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_bench_can_be_imported(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    importlib.import_module(name)
