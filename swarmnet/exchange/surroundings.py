"""What the exchange needs from the process around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from swarmnet.events import ExchangeDone
from swarmnet.exchange.links import Links
from swarmnet.exchange.membership import Membership, Status
from swarmnet.exchange.payload import Offload
from swarmnet.exchange.transport import Transport


@dataclass(frozen=True)
class Surroundings:
    """A peer's network, its knowledge of others, and its clock."""

    transport: Transport
    membership: Membership
    links: Links
    mine: Callable[[], Status]
    offload: Offload
    emit: Callable[[ExchangeDone], None]
    clock: Callable[[], float] = time.monotonic
