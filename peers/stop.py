"""What ends or pauses a process: signals, notices, its page. Everybody who waits looks here."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType

from swarmnet.errors import StopRequested


class Stop:
    """Set once, by a signal or by the process itself; everybody who waits looks here."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""
        self.at = math.inf
        """When it was set, in monotonic seconds."""
        self.at_once = False
        """There is nothing to hand over yet: a signal interrupts whatever the main thread does."""

    def set(self, reason: str) -> None:
        if not self._event.is_set():
            self.reason, self.at = reason, time.monotonic()
            self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)

    def on_signals(self) -> None:
        """SIGTERM and Ctrl-C ask to leave; a second one, of either kind, is left to the system.

        While ``at_once`` holds, the first one raises SystemExit in the main thread: to import, to
        build a model or to reach the run may take longer than leaving may.
        """
        asks = (signal.SIGTERM, signal.SIGINT)

        def handler(number: int, frame: FrameType | None) -> None:
            self.set(signal.Signals(number).name)
            for each in asks:
                signal.signal(each, signal.SIG_DFL)
            if self.at_once:
                raise SystemExit(StopRequested.exit_code)

        for number in asks:
            signal.signal(number, handler)


class Pause:
    """This machine's own wish to stand still for a while, beside the owner's order to the run."""

    def __init__(self) -> None:
        self.wanted = False

    def __bool__(self) -> bool:
        return self.wanted

    def on_signals(self) -> None:
        """SIGUSR1 pauses, SIGUSR2 goes on."""

        def handler(number: int, frame: FrameType | None) -> None:
            self.wanted = number == signal.SIGUSR1

        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, handler)
