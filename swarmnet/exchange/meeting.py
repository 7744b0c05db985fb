"""What one peer knows of one meeting while it lasts, and the memory that meetings share."""

from __future__ import annotations

from dataclasses import dataclass

from swarmnet.exchange.desk import Snapshot
from swarmnet.exchange.payload import Incoming
from swarmnet.exchange.subject import Correction
from swarmnet.exchange.timing import Timing
from swarmnet.wire.messages import Phase


@dataclass
class Scheduled:
    """The one meeting that a peer in the consensus phase waits for."""

    index: int = 0
    partner: str | None = None
    met: bool = False
    pending_round: int = -1
    """My own round that may turn out to have been this meeting."""


@dataclass
class Meeting:
    """One meeting from agreement to settlement, as this peer sees it."""

    phase: Phase
    partner: str
    round: int
    began: float
    layout: str
    scheduled: Scheduled
    timing: Timing
    ended: float = 0.0
    work: int = 0
    """Inner steps behind my payload."""
    snapshot: Snapshot | None = None
    incoming: Incoming | None = None
    correction: Correction | None = None
    own_act: bool = False
    """It failed because of this peer, so the partner is not suspected."""
    withdrawn: bool = False
    """The offerer met somebody else instead; it is nobody's fault."""

    def agreed(self) -> tuple[Snapshot, Correction]:
        """Both exist from the moment on that this side has said HAVE."""
        assert self.snapshot is not None
        assert self.correction is not None
        return self.snapshot, self.correction


class ReceiveBuffer:
    """One buffer for the partner's payload, kept between meetings; a second asker gets its own."""

    def __init__(self) -> None:
        self._kept: bytearray | None = None

    def lend(self, nbytes: int) -> bytearray:
        kept, self._kept = self._kept, None
        return kept if kept is not None and len(kept) == nbytes else bytearray(nbytes)

    def give_back(self, buffer: bytearray) -> None:
        if buffer:
            self._kept = buffer
