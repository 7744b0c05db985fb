"""What a group meeting means to a gossip peer: snapshots, settlements, open questions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from swarmnet.events import ExchangeDone
from swarmnet.exchange.attend import Minutes, Tools
from swarmnet.exchange.claims import Ids
from swarmnet.exchange.desk import Desk, Settlement
from swarmnet.exchange.ledger import Open, Pending
from swarmnet.exchange.pair import End
from swarmnet.exchange.payload import Outgoing
from swarmnet.exchange.subject import Subject
from swarmnet.exchange.surroundings import Others
from swarmnet.exchange.window import Window
from swarmnet.wire.messages import Call, Decline, DeclineReason, Digest, Offer


class Around(Tools, Protocol):
    """The part of ``driver.Surroundings`` that is used here."""

    @property
    def membership(self) -> Others: ...
    @property
    def emit(self) -> Callable[[ExchangeDone], None]: ...


@dataclass(frozen=True)
class Own:
    """What this peer's pairs and groups share."""

    window: Window
    desk: Desk
    subject: Subject
    pending: Pending[Any]
    in_weights: deque[tuple[str, int]]


@dataclass(frozen=True)
class Doors:
    """How the driver answers, whoever calls."""

    refusal: Callable[[str, Offer], DeclineReason | None]
    declining: Callable[[str, DeclineReason], Decline]
    heard: Callable[[str, Digest | None], None]
    digest: Callable[[], Digest]
    number: Callable[[], int]
    wake: Callable[[], None]


class GroupHost:
    """Implements ``attend.Host`` for a ``Gossip``."""

    def __init__(self, around: Around, own: Own, doors: Doors) -> None:
        self.subject = own.subject
        self.heard, self.digest, self.number = doors.heard, doors.digest, doors.number
        self._around = around
        self._own = own
        self._doors = doors

    def welcome(self, peer: str, call: Call) -> Decline | None:
        offer = Offer(
            round=call.round, phase=call.phase, index=0, layout=call.layout, nbytes=call.nbytes
        )
        reason = self._doors.refusal(peer, offer)
        return None if reason is None else self._doors.declining(peer, reason)

    def unreachable(self, peer: str) -> None:
        self._around.membership.suspect(peer, self._around.clock())

    def committed(self, sample: int) -> bool:
        """Weights claim no samples."""
        return False

    def take(self) -> tuple[Outgoing, int, Ids]:
        snapshot = self._own.desk.take()
        outgoing = Outgoing(self.subject, snapshot, self._around.offload)
        steps = self._own.window.work(snapshot.step)
        return outgoing, self.subject.effort(steps, self._own.window.step_s), ()

    def conclude(self, minutes: Minutes) -> None:
        event = ExchangeDone(
            phase=minutes.call.phase,
            outcome=minutes.end.value,
            partner=minutes.leader,
            round=minutes.number,
            seconds=self._around.clock() - minutes.began,
            bytes_sent=minutes.bytes_sent,
            bytes_received=minutes.bytes_received,
            distance=minutes.correction.distance if minutes.correction else 0.0,
            reason=_reasons(minutes),
            members=len(minutes.works),
        )
        if minutes.end is End.FAILED:
            self._fail(minutes, event)
        else:
            self._settle(minutes, event)
        self._doors.wake()

    def _settle(self, minutes: Minutes, event: ExchangeDone) -> None:
        """Pending: my own part now, the correction when the leader or a witness tells."""
        own, snapshot, correction = self._own, minutes.snapshot, minutes.correction
        assert snapshot is not None
        assert correction is not None
        applied = minutes.end is End.APPLIED
        others = [peer for peer in minutes.works if peer != self._around.transport.me]
        now = self._around.clock()

        def apply() -> None:
            if applied:
                self.subject.apply_met(snapshot.vector, correction.vector)
                own.in_weights.append((minutes.leader, minutes.number))
            else:
                self.subject.apply_solo(snapshot.vector)

        own.window.over(snapshot.step, None, now)
        if applied:
            own.window.history.extend(others)
        else:
            self._around.membership.suspect(minutes.leader, now)
            own.pending.add(
                Open(
                    peer=minutes.leader,
                    round=minutes.number,
                    correction=correction.vector,
                    window=own.window.number,
                    phase=minutes.call.phase,
                    step=snapshot.step,
                    witnesses=tuple(peer for peer in others if peer != minutes.leader),
                )
            )
        own.desk.settle(Settlement(apply, event, snapshot.step, returns=snapshot))

    def _fail(self, minutes: Minutes, event: ExchangeDone) -> None:
        if minutes.snapshot is not None:
            self._own.desk.put_back(minutes.snapshot)
        self._around.emit(event)


def _reasons(minutes: Minutes) -> str:
    without = [f"without {peer}: {why}" for peer, why in sorted(minutes.removed.items())]
    return "; ".join([minutes.reason, *without] if minutes.reason else without)
