"""What the machines of a pipeline want done: their shells do it, in order."""

from __future__ import annotations

from dataclasses import dataclass

from swarmnet.pipeline.works import Handle
from swarmnet.wire.messages import Message


@dataclass(frozen=True)
class Say:
    """Send this letter."""

    peer: str
    letter: Message
    payload: tuple[memoryview, ...] = ()


@dataclass(frozen=True)
class Drop:
    """Free what the compute thread keeps for this forward."""

    handle: Handle


Act = Say | Drop
