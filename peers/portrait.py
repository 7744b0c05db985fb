"""A peer's state at a step boundary, for joiners, exports and its own disk.

The network asks, the training thread paints between two steps: one portrait serves all who wait.
"""

from __future__ import annotations

import concurrent.futures
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from swarmnet.wire.messages import Count, Seconds


@dataclass(frozen=True)
class Portrait:
    """One peer's state at a step boundary, and the numbers that go with it."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    finish: Callable[[], None] = lambda: None
    """Returns when the copy is done: a mirrored state may still be on its way to host memory."""


class Facts(BaseModel):
    """The numbers that must go with a state, as a stranger may write them."""

    model_config = ConfigDict(strict=True, extra="ignore")
    step: Count
    tokens: Count
    elapsed_s: Seconds
    met: bool


class Easel:
    """Where the network asks for portraits and the training thread paints them."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[concurrent.futures.Future[Portrait]] = queue.SimpleQueue()
        self.painted_s = 0.0
        """How long the latest one took: so long training stood still."""

    def want(self) -> concurrent.futures.Future[Portrait]:
        future: concurrent.futures.Future[Portrait] = concurrent.futures.Future()
        self._wanted.put(future)
        return future

    @property
    def wanted(self) -> bool:
        """Somebody waits for a portrait."""
        return not self._wanted.empty()

    def paint(self, make: Callable[[], Portrait]) -> None:
        """Training thread, between steps: one portrait serves everybody who waits."""
        portrait: Portrait | None = None
        while not self._wanted.empty():
            future = self._wanted.get()
            if future.set_running_or_notify_cancel():
                if portrait is None:
                    began = time.perf_counter()
                    portrait = make()
                    self.painted_s = time.perf_counter() - began
                future.set_result(portrait)
