"""An asyncio loop in virtual time: when every task waits, the clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


TICKS_PER_S = 1 << 30


class Deadlock(RuntimeError):
    """Every task waits for something that no timer will bring: a bug in the simulated code."""


class _JumpingSelector(selectors.SelectSelector):
    """Takes no time to wait: it reports no IO and moves the clock instead."""

    now = 0.0

    def jump(self, seconds: float) -> None:
        """To a whole number of ticks, so that a clock with an offset measures the same spans."""
        self.now = math.ceil((self.now + seconds) * TICKS_PER_S) / TICKS_PER_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("all simulated tasks wait and no timer is set")
        if timeout > 0:
            self.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``loop.time()`` starts at 0 and passes only while nothing can run."""

    def __init__(self) -> None:
        self._jumper = _JumpingSelector()
        super().__init__(self._jumper)

    def time(self) -> float:
        return self._jumper.now

    def _write_to_self(self) -> None:
        """Nothing ever blocks in ``select``, so nobody has to be woken out of it."""


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run ``main`` to its end in virtual time. Raises Deadlock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    """Virtual seconds since the start of the running simulation."""
    return asyncio.get_running_loop().time()
