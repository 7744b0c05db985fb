"""One sample at a stage peer: what it came with, how far it is, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from swarmnet.pipeline.works import NOTHING, Entry, Handle
from swarmnet.wire.letters import Forward


class Phase(Enum):
    """Where a sample is within this peer: what it waits for, or what is done with it now.

    HEAVY: answered, its weight gradient waits. ANSWERED: nothing is left to do.
    """

    WAITING = auto()
    FORWARDING = auto()
    SENT = auto()
    GOT = auto()
    TURNING = auto()
    HEAVY = auto()
    ANSWERED = auto()


class Task(Enum):
    """What the compute thread does next."""

    FORWARD = auto()
    BACKWARD = auto()
    WEIGH = auto()


@dataclass(frozen=True)
class Place:
    """Where this peer stands, and how much it takes on."""

    me: str
    stage: int
    stages: int
    max_waiting: int = 16
    max_held: int = 128
    max_batch: int = 1

    @property
    def last(self) -> bool:
        return self.stage == self.stages - 1


@dataclass
class Record:
    """One sample. ``since``: when it began to wait for what it waits for."""

    letter: Forward
    entry: Entry
    since: float
    route: tuple[str, ...]
    attempt: int
    mask: frozenset[int]
    phase: Phase = Phase.WAITING
    handle: Handle = None
    version: int = 0
    output: memoryview = NOTHING
    gradient: memoryview = NOTHING
    answer: memoryview | None = None
    awaits: bool = False
    """The output is sent and its gradient has not come."""
    forgotten: bool = False
    """In the compute thread's hands when its trainer forgot it: nothing shall come of it."""
    loss: float = 0.0
    tokens: int = 0
    waited_s: float = 0.0
    busy_s: float = 0.0

    def sender(self, place: Place) -> str:
        """Whose output came in."""
        return self.route[place.stage - 1] if place.stage else self.letter.trainer

    def receiver(self, place: Place) -> str:
        """Who gets the output and gives its gradient; nobody behind the tail."""
        return "" if place.last else self.route[place.stage + 1]
