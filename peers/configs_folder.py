"""Where the run and peer files that ship with the package are: installed, or in a checkout."""

from __future__ import annotations

from pathlib import Path

_PLACES = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")


def shipped(kind: str, name: str) -> Path | None:
    """``configs/<kind>/<name>[.toml]`` if there is one."""
    for place in _PLACES:
        for candidate in (place / kind / name, place / kind / f"{name}.toml"):
            if candidate.is_file():
                return candidate
    return None
