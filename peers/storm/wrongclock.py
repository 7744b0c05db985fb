"""A wall clock that is wrong, for one process: what a laptop's is after a flat battery.

``time.time`` is exchanged wherever a module holds it, also under another name, as the DHT's does.
The stamps of the event log stay right: with them the experiment is measured.
"""

from __future__ import annotations

import sys
import time
from types import ModuleType

SPARED = ("swarmnet.events", __name__)
_true = time.time


class WrongClock:
    """Seconds since 1970 as this process takes them to be. ``ahead_s`` may change at any time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return _true() + self.ahead_s

    def install(self) -> list[tuple[ModuleType, str]]:
        """Modules that are imported later find it too. Returns where it stands now."""
        places = []
        for name, module in list(sys.modules.items()):
            if name in SPARED or module is None:
                continue
            for key, value in list(vars(module).items()):
                if value is _true:
                    setattr(module, key, self)
                    places.append((module, key))
        return places


CLOCK = WrongClock()
"""That of this process; it is right until somebody installs it and sets it wrong."""
