"""A meeting every so many seconds: H follows from how fast the own machine steps.

``H = clamp(floor(round_s / seconds per step), h_min, h_max)``, the choice of FedCompass without
its server (arXiv:2309.14675): whoever meets has trained for about the same time, so a slow machine
is no older than a fast one, only smaller in what it brings. Nothing is announced: the run gives the
length of a round, the rest is each peer's own.
"""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator

from swarmnet.cadence import Window
from swarmnet.config import Section


class ByRate:
    """Offers after H own steps and accepts from half of them on.

    The step time is a running mean, so H needs no hysteresis: a flicker between two neighbours
    moves a meeting by one step, and no window is longer than ``h_max``. While it is not known, H
    is ``h_max``; a machine that needs more than a round for a step meets after every ``h_min``.
    """

    class Config(Section):
        round_s: float = Field(10.0, gt=0, allow_inf_nan=False, description="seconds of a round")
        h_min: int = Field(1, gt=0, description="fewest inner steps between meetings")
        h_max: int = Field(100, gt=0, le=10_000, description="most inner steps between meetings")
        begin_at: float = Field(
            0.0, ge=0, lt=1, description="share of the run before the first meeting"
        )

        @model_validator(mode="after")
        def _is_a_range(self) -> Self:
            if self.h_min > self.h_max:
                raise ValueError(f"h_min = {self.h_min} is above h_max = {self.h_max}")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    def ready(self, window: Window) -> bool:
        return self._open(window) and window.steps_since >= self.steps(window.step_s)

    def willing(self, window: Window) -> bool:
        return self._open(window) and 2 * window.steps_since >= self.steps(window.step_s)

    def steps(self, step_s: float) -> int:
        """H of a machine that needs ``step_s`` seconds for a step; 0 is a time not yet known."""
        config = self.config
        if step_s * config.h_max <= config.round_s:
            return config.h_max
        return max(config.h_min, math.floor(config.round_s / step_s))

    def _open(self, window: Window) -> bool:
        return window.progress >= self.config.begin_at
