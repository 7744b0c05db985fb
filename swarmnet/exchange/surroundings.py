"""What the exchange needs from the process around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from swarmnet.events import ExchangeDone
from swarmnet.exchange.links import Links
from swarmnet.exchange.membership import Status
from swarmnet.exchange.payload import Offload
from swarmnet.exchange.transport import Transport
from swarmnet.wire.messages import Digest


class Others(Protocol):
    """With whom this peer may meet: a ``membership.Membership``, or a part of one."""

    def alive(
        self, now: float, states: Iterable[str] = ..., *, suspects: bool = False
    ) -> list[str]: ...
    def status(self, peer: str) -> Status | None: ...
    def is_dead(self, peer: str, now: float) -> bool: ...
    def hear(self, peer: str, digest: Digest | None, now: float) -> None: ...
    def digest(self, mine: Status, now: float) -> Digest: ...
    def suspect(self, peer: str, now: float, retry_s: float = 0.0) -> None: ...
    def clear(self, peer: str) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    """A peer's network, its knowledge of others, and its clock."""

    transport: Transport
    membership: Others
    links: Links
    mine: Callable[[], Status]
    offload: Offload
    emit: Callable[[ExchangeDone], None]
    clock: Callable[[], float] = time.monotonic
