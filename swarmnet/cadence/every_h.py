"""A meeting every H inner steps, DiLoCo's and NoLoCo's cadence without their barrier."""

from __future__ import annotations

from pydantic import Field

from swarmnet.cadence import Window
from swarmnet.config import Section


class EveryH:
    """Offers after H own steps and accepts from half of them on.

    The slack lets machines of different speed meet: nobody waits for H to match.
    """

    class Config(Section):
        h: int = Field(20, gt=0, description="inner steps between meetings")
        begin_at: float = Field(
            0.0, ge=0, lt=1, description="share of the run before the first meeting"
        )

    def __init__(self, config: Config) -> None:
        self.config = config

    def ready(self, window: Window) -> bool:
        return self._open(window) and window.steps_since >= self.config.h

    def willing(self, window: Window) -> bool:
        return self._open(window) and 2 * window.steps_since >= self.config.h

    def _open(self, window: Window) -> bool:
        return window.progress >= self.config.begin_at
