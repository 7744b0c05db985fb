"""What one meeting took, told by its frames as they come and go. No clock in here."""

from __future__ import annotations

from dataclasses import dataclass, field

from swarmnet.wire import Frame, Kind


@dataclass
class _Flow:
    """One direction of a payload, between the ends of its first and of its last PART.

    The first PART only starts the watch: what came before it is waiting, not sending.
    """

    first_at: float = 0.0
    last_at: float = 0.0
    first: int = 0
    nbytes: int = 0

    def add(self, nbytes: int, now: float) -> None:
        if not self.nbytes:
            self.first_at, self.first = now, nbytes
        self.last_at = now
        self.nbytes += nbytes

    def seconds(self, nbytes: int) -> float:
        """What ``nbytes`` take at the pace seen; 0 while less than two PARTs have passed."""
        timed = self.nbytes - self.first
        return nbytes * (self.last_at - self.first_at) / timed if timed else 0.0


@dataclass
class Timing:
    """One side's stopwatch of one meeting. ``began``: before the stream was opened.

    ``called`` says that this side offered. All figures are seconds, and 0 for what has not
    been measured: answers and starts are timed by the caller alone.
    """

    began: float
    called: bool = False
    answer_s: float = 0.0
    """From the start, the opening of the stream included, to the partner's first frame."""
    longest_s: float = 0.0
    """The longest wait for one of the later frames."""
    gave_up_s: float = 0.0
    """How long the wait was that a deadline ended."""
    _agreed_at: float = 0.0
    _late_s: float = 0.0
    _out: _Flow = field(default_factory=_Flow)
    _in: _Flow = field(default_factory=_Flow)

    @property
    def awaits_answer(self) -> bool:
        return self.called and not self.answer_s

    @property
    def payload_received(self) -> int:
        """Bytes."""
        return self._in.nbytes

    @property
    def payload_sent(self) -> int:
        """Bytes."""
        return self._out.nbytes

    @property
    def receive_s(self) -> float:
        """Of the partner's payload, at the pace of all but its first PART."""
        return self._in.seconds(self._in.nbytes)

    @property
    def send_s(self) -> float:
        """Of my payload. A transport that buffers takes a small one faster than it carries it."""
        return self._out.seconds(self._out.nbytes)

    @property
    def start_s(self) -> float:
        """How long an acceptor's payload was not ready, the way of its first PART taken off.

        It sends ACCEPT and PART in one go, so no network is in it: only its computer.
        """
        return max(0.0, self._late_s - self._in.seconds(self._in.first)) if self.receive_s else 0.0

    def sent(self, frame: Frame, now: float) -> None:
        """The transport has taken ``frame``."""
        if frame.kind is Kind.PART:
            self._out.add(len(frame.body), now)

    def received(self, frame: Frame, asked: float, now: float) -> None:
        """``frame`` is whole; it was waited for since ``asked``."""
        if self.awaits_answer:
            self.answer_s = now - self.began
            self._agreed_at = now
        elif frame.kind in (Kind.ACCEPT, Kind.DECLINE):
            self._agreed_at = now  # after a HOLD: how long that took is not the link's doing
        else:
            self.longest_s = max(self.longest_s, now - asked)
        if frame.kind is Kind.PART:
            if self.called and not self._in.nbytes:
                self._late_s = now - self._agreed_at
            self._in.add(len(frame.body), now)

    def gave_up(self, asked: float, now: float) -> None:
        """A deadline ended the wait that began at ``asked``."""
        self.gave_up_s = now - (self.began if self.awaits_answer else asked)
