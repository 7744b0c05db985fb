"""A notice from a program: it exits with 0."""

from __future__ import annotations

import subprocess

from pydantic import Field

from swarmnet.config import Section


class Command:
    """For whatever no file and no URL tells. No shell is between; its output is thrown away."""

    class Config(Section):
        argv: tuple[str, ...] = Field(min_length=1, description="the program with its arguments")
        timeout_s: float = Field(5.0, gt=0, le=60, description="longer is no answer")

    def __init__(self, config: Config) -> None:
        self.config = config

    def look(self) -> str | None:
        config = self.config
        try:
            done = subprocess.run(
                config.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=config.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{config.argv[0]} ran longer than {config.timeout_s:g} s") from error
        return f"{config.argv[0]} says so" if done.returncode == 0 else None
