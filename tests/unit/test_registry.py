"""A config value is a file name: found lazily, misspelt helpfully, one class a file."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from swarmnet import registry
from swarmnet.config import Section
from swarmnet.errors import ConfigError

ONE = "class Config: ...\nclass {name}:\n    class Config: ...\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A choice folder ``swarmnet.<name>`` made of files under tmp_path."""
    name = f"made_{tmp_path.name}"
    package = types.ModuleType(f"swarmnet.{name}")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    yield name, tmp_path
    for module in [m for m in sys.modules if m.startswith(f"{package.__name__}.")]:
        del sys.modules[module]


@pytest.mark.parametrize("name", registry.FOLDERS + registry.OF_A_PEER)
def test_every_choice_is_one_class_with_its_config(name):
    for choice in registry.names(name):
        cls = registry.find(name, choice)
        assert cls.__module__ == f"swarmnet.{name}.{choice}"
        assert issubclass(cls.Config, Section)


def test_the_file_list_is_the_list_of_legal_values():
    assert registry.names("codec") == ("bf16", "int8", "raw")
    assert registry.names("reduce") == ("mean",)
    assert set(registry.names("matching")) >= {"hypercube", "random_pairs", "solo"}


def test_an_unknown_name_lists_the_known_ones_and_guesses():
    with pytest.raises(ConfigError) as caught:
        registry.find("codec", "int88")
    message = str(caught.value)
    assert "codec = 'int88'" in message
    assert "known: bf16, int8, raw" in message
    assert "Did you mean 'int8'?" in message


@pytest.mark.parametrize("name", ["_buffers", "__init__", "raw.Raw", "../errors", ""])
def test_what_is_no_choice_is_not_imported(name):
    with pytest.raises(ConfigError, match="is not known"):
        registry.find("codec", name)


def test_helpers_beside_the_one_class_are_allowed(folder):
    name, path = folder
    (path / "good.py").write_text("class Helper: ...\n" + ONE.format(name="Good"))
    (path / "_hidden.py").write_text("")
    assert registry.names(name) == ("good",)
    assert registry.find(name, "good").__name__ == "Good"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "class Bare: ...\n",
        ONE.format(name="A") + ONE.format(name="B"),
        "from swarmnet.codec.raw import Raw\n",
        "from swarmnet.codec.raw import Raw\nclass Child(Raw): ...\n",
    ],
    ids=["empty", "without Config", "two", "imported", "inherited Config"],
)
def test_a_file_must_hold_exactly_one_class_with_a_config(folder, text):
    name, path = folder
    (path / "bad.py").write_text(text)
    with pytest.raises(TypeError, match="exactly one class"):
        registry.find(name, "bad")


def test_the_registry_and_listing_names_need_no_torch():
    code = (
        "import sys\n"
        "from swarmnet import registry\n"
        "folders = set(registry.FOLDERS) - {'model', 'data'}\n"
        "assert all(registry.names(folder) for folder in folders)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
