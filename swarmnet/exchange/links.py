"""Deadlines that set themselves: median plus k times the median deviation of what links did.

Nobody configures a timeout. A partner that is known is judged by its own past; a stranger by
everybody's, with slack; constants count only until the first partners have answered.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict
from dataclasses import dataclass, field

from swarmnet.exchange.timing import Timing

HISTORY = 32
OVERALL = 64
"""Samples of everybody: enough for a median that no single partner owns."""
MAX_PEERS = 256
K_MAD = 6.0
ENOUGH = 4
"""Fewer samples than this say little about a partner."""
STRANGER_SLACK = 2.0
FLOOR_S = 2.0
"""Below that a busy machine's scheduler, not the link, decides."""
FIRST_S = 5.0
CEILING_S = 20.0
"""libp2p itself notices a dead link after 35 s; a deadline must be shorter to be of use."""
HEDGE_FLOOR_S = 1.0
"""A second offer costs both partners work; a hiccup of the scheduler must not cause one."""
HEDGE_FIRST_S = 2.0
RETRY_FLOOR_S = 0.05


class _Samples:
    """The last ``most`` figures of one kind."""

    __slots__ = ("most", "values")

    def __init__(self, most: int) -> None:
        self.most = most
        self.values: list[float] = []

    def add(self, value: float) -> None:
        self.values.append(value)
        del self.values[: -self.most]

    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    def late(self) -> float | None:
        """Beyond this a figure is an outlier; None while too few are known."""
        if len(self.values) < ENOUGH:
            return None
        median = statistics.median(self.values)
        mad = statistics.median(abs(value - median) for value in self.values)
        return max(median + K_MAD * mad, 4 * median)


@dataclass(slots=True)
class _Past:
    """What one partner, or everybody together, did before."""

    most: int = HISTORY
    answers: _Samples = field(init=False)
    """Seconds from opening a stream to the first frame of the answer."""
    waits: _Samples = field(init=False)
    """Seconds of the longest wait of each meeting."""
    received: _Samples = field(init=False)
    """Bytes per second."""
    sent: _Samples = field(init=False)
    failures: int = 0
    """In a row."""

    def __post_init__(self) -> None:
        self.answers, self.waits = _Samples(self.most), _Samples(self.most)
        self.received, self.sent = _Samples(self.most), _Samples(self.most)


class Links:
    """What links to partners did, and how long to wait for them therefore. Seconds, bytes."""

    def __init__(self) -> None:
        self._all = _Past(OVERALL)
        self._past: OrderedDict[str, _Past] = OrderedDict()

    # ---- what was seen ----------------------------------------------------------------------

    def observe(self, peer: str, waited_s: float) -> None:
        """The longest wait of one meeting; one that a deadline ended counts as long as it was."""
        for past in self._both(peer):
            past.waits.add(waited_s)

    def answered(self, peer: str, answer_s: float) -> None:
        """So long ``peer`` took to answer; or it did not, and so long it was waited for."""
        for past in self._both(peer):
            past.answers.add(answer_s)

    def learn(self, peer: str, timing: Timing) -> None:
        """A meeting is over that ran to its end, was declined, or outlasted a deadline."""
        if timing.gave_up_s:
            note = self.answered if timing.awaits_answer else self.observe
            note(peer, timing.gave_up_s)
            self._known(peer).failures += 1
            return
        self._known(peer).failures = 0
        if timing.answer_s:
            self.answered(peer, timing.answer_s)
        if timing.longest_s:
            self.observe(peer, timing.longest_s)
        for past in self._both(peer):
            if timing.receive_s:
                past.received.add(timing.payload_received / timing.receive_s)
            if timing.send_s:
                past.sent.add(timing.payload_sent / timing.send_s)

    # ---- what follows -----------------------------------------------------------------------

    def deadline_s(self, peer: str) -> float:
        """How long to wait for this peer's next sign before the meeting counts as lost."""
        past = self._past.get(peer)
        return _deadline(past.waits if past else None, self._all.waits)

    def answer_s(self, peer: str) -> float:
        """How long to wait for this peer's first word: opening a stream, an offer, a question."""
        past = self._past.get(peer)
        return _deadline(past.answers if past else None, self._all.answers)

    def hedge_s(self, peer: str) -> float:
        """After how long without an answer somebody else should be asked as well."""
        past = self._past.get(peer)
        late = past.answers.late() if past else None
        if late is None:
            overall = self._all.answers.late()
            late = HEDGE_FIRST_S if overall is None else STRANGER_SLACK * overall
        return min(max(late, HEDGE_FLOOR_S), CEILING_S)

    def retry_s(self, peer: str) -> float:
        """How long to leave ``peer`` alone: no less than it takes to answer, doubled for each
        deadline in a row that it let pass."""
        past = self._past.get(peer)
        usual = (past.answers.median() if past else None) or self._all.answers.median()
        failures = past.failures if past else 0
        return min(max(usual or 0.0, RETRY_FLOOR_S) * 2.0 ** min(failures, 16), CEILING_S)

    def expected_s(self, peer: str, nbytes: int) -> float | None:
        """What a meeting takes with ``nbytes`` each way at once; None before any is known."""
        past = self._past.get(peer, self._all)
        answer = past.answers.median() or self._all.answers.median()
        flows = (past.received, self._all.received), (past.sent, self._all.sent)
        rates = [rate for own, overall in flows if (rate := own.median() or overall.median())]
        if answer is None or not rates:
            return None
        return answer + nbytes / min(rates)

    # ---- memory -----------------------------------------------------------------------------

    def _both(self, peer: str) -> tuple[_Past, _Past]:
        return self._known(peer), self._all

    def _known(self, peer: str) -> _Past:
        """Bounded: whoever was not seen for longest is a stranger again."""
        past = self._past.setdefault(peer, _Past())
        self._past.move_to_end(peer)
        if len(self._past) > MAX_PEERS:
            self._past.popitem(last=False)
        return past


def _deadline(own: _Samples | None, overall: _Samples) -> float:
    late = own.late() if own else None
    if late is None:
        general = overall.late()
        late = FIRST_S if general is None else STRANGER_SLACK * max(general, FLOOR_S)
    return min(max(late, FLOOR_S), CEILING_S)
