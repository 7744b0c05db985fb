"""A notice that somebody writes to this machine's disk: the path appears."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from swarmnet.config import Section


class File:
    """For schedulers and scripts that can touch a file, and for tests."""

    class Config(Section):
        path: Path = Field(description="leave as soon as this exists")

    def __init__(self, config: Config) -> None:
        self.config = config

    def look(self) -> str | None:
        """``stat`` and not ``exists``: a folder that cannot be read is no good news."""
        try:
            self.config.path.stat()
        except FileNotFoundError:
            return None
        return f"{self.config.path} exists"
