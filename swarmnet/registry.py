"""From a config value to the class that it names: one file per choice, found by its name.

A *choice folder* is a package such as ``swarmnet.codec``. ``codec = "int8"`` means the one
class with a nested ``Config`` in ``swarmnet/codec/int8.py``. Nothing is registered anywhere:
``ls`` lists the legal values. Modules are imported when they are first asked for.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from typing import Any

from swarmnet.errors import ConfigError

FOLDERS = (
    "codec",
    "matching",
    "reduce",
    "inner",
    "outer",
    "cadence",
    "model",
    "data",
    "sharing",
    "wiring",
    "boundary",
)
"""Those of a run file."""
OF_A_PEER = ("notice",)
"""Those of a peer file."""


@cache
def names(folder: str) -> tuple[str, ...]:
    """The legal values of the choice ``folder``, sorted."""
    package = importlib.import_module(f"swarmnet.{folder}")
    found = (m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg)
    return tuple(sorted(name for name in found if not name.startswith("_")))


@cache
def find(folder: str, name: str) -> Any:
    """The class that ``folder = "name"`` stands for.

    Raises:
        ConfigError: no such file in the folder; the message lists the known names.
    """
    if name not in names(folder):
        close = difflib.get_close_matches(name, names(folder), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"{folder} = {name!r} is not known; known: {', '.join(names(folder))}.{hint}"
        )
    module = importlib.import_module(f"swarmnet.{folder}.{name}")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and _owns_config(value)
    ]
    if len(own) != 1:
        raise TypeError(f"swarmnet/{folder}/{name}.py must hold exactly one class with a Config")
    return own[0]


def _owns_config(cls: type) -> bool:
    return isinstance(vars(cls).get("Config"), type)
