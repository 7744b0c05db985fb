"""A farewell: a leaver hands the work that nobody has of it to one neighbour, exactly once.

The machines are ``pair.Leaver`` and ``pair.Heir``; here is the order of calls. An heir needs no
snapshot and no ripe window: it takes the displacement at its next step boundary, whatever else it
does. A round of a farewell is decided in the same ledger as those of meetings, so a leaver that
is not sure asks the same question, and by being asked a round that was not decided is dropped.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from swarmnet.errors import LinkError, PeerFault
from swarmnet.events import ExchangeDone
from swarmnet.exchange.desk import Desk, Settlement, Snapshot
from swarmnet.exchange.pair import End, Heir, Leaver
from swarmnet.exchange.payload import Incoming, Outgoing
from swarmnet.exchange.questions import Questions
from swarmnet.exchange.session import Hooks, Session
from swarmnet.exchange.subject import Correction, Legacy, Vector
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.timing import Timing
from swarmnet.exchange.transport import FrameStream
from swarmnet.wire.messages import Accept, Ask, Decline, DeclineReason, Digest, Offer

TOPIC = "exchange"
RETRY_S = 0.1
"""A farewell under way is short, and whoever leaves has little time."""
ASK_S = 0.3
"""Kept back for one question."""
FIRST_WORD = 0.4
"""The share of the time left that one neighbour may take to answer: others may be awake."""
LINK_RETRY_S = 0.5
MAY_CHANGE_ITS_MIND = ("busy", "syncing")
NOBODY = "nobody is there"
MOST_IN_A_WINDOW = 8
"""Whoever says farewell without end, under many names, is listened to so often between meetings."""

Outcome = Literal["given", "unsure", "nobody"]


@dataclass(frozen=True)
class Said:
    """How a farewell ended. ``unsure``: the heir got all of it, and cannot be asked about it."""

    outcome: Outcome
    heir: str = ""
    bytes_sent: int = 0
    reason: str = ""
    gone: Vector | None = None
    """What the leaver must part with, as the heir has decoded it. Of an unsure farewell too: work
    may be lost, and is never there twice."""
    distance: float = 0.0
    """Its root mean square."""


@dataclass(frozen=True)
class Doors:
    """What a farewell needs of the driver."""

    refusal: Callable[[], DeclineReason | None]
    """Why this peer inherits nothing now."""
    heirs: Callable[[], list[str]]
    """Whom to ask, in this order."""
    number: Callable[[], int]
    """The next round of my own."""
    digest: Callable[[], Digest]
    effort: Callable[[], int]
    """What a contribution of mine would weigh now."""
    step: Callable[[], int]
    """Inner steps that this peer has done."""
    window: Callable[[], int]
    """The number of my window."""
    inherited: Callable[[str, int], None]
    """This round of that peer is in the weights."""


@dataclass
class _Call:
    """One try with one neighbour."""

    peer: str
    machine: Leaver
    session: Session | None = None


class _LastWords:
    """My payload; from its last part on only the heir knows (``session.Sendable``)."""

    def __init__(self, outgoing: Outgoing, machine: Leaver) -> None:
        self.parts = outgoing.parts
        self._outgoing = outgoing
        self._machine = machine

    async def part(self, part: int) -> memoryview:
        view = await self._outgoing.part(part)
        if part == self.parts - 1 and self._machine.giving:
            self._machine.all_out()
        return view


class Farewells:
    """Both sides of farewells of one peer; it is one leaver's heir at a time."""

    def __init__(
        self,
        around: Surroundings,
        desk: Desk,
        legacy: Legacy,
        questions: Questions,
        doors: Doors,
    ) -> None:
        self.heir_once = False
        """This peer has inherited something since it was started."""
        self._around = around
        self._desk = desk
        self._legacy = legacy
        self._questions = questions
        self._decisions = questions.decisions
        self._doors = doors
        self._busy = False
        self._heirlooms = (0, 0)
        """The number of a window, and how many farewells were accepted in it."""

    # ---- as leaver --------------------------------------------------------------------------

    async def say(self, snapshot: Snapshot, until: float) -> Said:
        """Hand what ``legacy.capture`` gave to one neighbour. Never raises LinkError or PeerFault.

        ``until``: seconds of the peer's clock; then it is over, whatever was reached.
        """
        outgoing = Outgoing(self._legacy, snapshot, self._around.offload)
        not_before: dict[str, float] = {}
        reasons: dict[str, str] = {}
        unfit: set[str] = set()
        sent = 0
        while (now := self._around.clock()) < until:
            heirs = [peer for peer in self._doors.heirs() if peer not in unfit]
            if not heirs:
                break
            peer = min(heirs, key=lambda heir: not_before.get(heir, -math.inf))
            if (wait_s := not_before.get(peer, now) - now) > 0:
                await asyncio.sleep(min(wait_s, until - now))
                continue
            call = await self._call(peer, outgoing, until)
            sent += call.session.bytes_sent if call.session is not None else 0
            outcome = await self._outcome(call, until)
            if outcome != "nobody":
                gone = await self._around.offload(self._decoded, snapshot)
                reason = call.machine.reason
                return Said(outcome, peer, sent, reason, gone.vector, gone.distance)
            decline, now = call.machine.decline, self._around.clock()
            reasons[peer] = call.machine.reason
            if decline is None:  # others first, and then once more: links come back
                not_before[peer] = now + LINK_RETRY_S
            elif decline.reason in MAY_CHANGE_ITS_MIND:
                not_before[peer] = now + max(decline.retry_s, RETRY_S)
            else:
                unfit.add(peer)
        return Said("nobody", "", sent, "; ".join(sorted(set(reasons.values()))) or NOBODY)

    def _decoded(self, snapshot: Snapshot) -> Correction:
        """My own payload as everybody decodes it."""
        intake, me = self._legacy.intake(1, 1), self._around.transport.me
        for part in range(self._legacy.parts):
            intake.take(part, {me: self._legacy.encode(snapshot.vector, part)})
        return intake.finish()

    async def _outcome(self, call: _Call, until: float) -> Outcome:
        """A call that is open is asked for once."""
        end = call.machine.end
        if end is End.PENDING:
            return await self._ask(call, until)
        return "given" if end is End.APPLIED else "nobody"

    async def _ask(self, call: _Call, until: float) -> Outcome:
        try:
            async with asyncio.timeout(max(ASK_S, until - self._around.clock())):
                ask = Ask(rounds=(call.machine.offer.round,))
                outcomes = (await self._questions.told(call.peer, ask)).outcomes
        except (TimeoutError, LinkError, PeerFault):
            return "unsure"
        if outcomes[:1] == ("applied",):
            return "given"
        return "nobody" if outcomes[:1] == ("dropped",) else "unsure"

    async def _call(self, peer: str, outgoing: Outgoing, until: float) -> _Call:
        clock, legacy = self._around.clock, self._legacy
        offer = Offer(
            round=self._doors.number(),
            phase="train",
            index=0,
            layout=legacy.layout,
            nbytes=legacy.nbytes,
            work=self._doors.effort(),
            farewell=True,
            digest=self._doors.digest(),
        )
        call = _Call(peer, Leaver(offer))
        try:
            async with asyncio.timeout(FIRST_WORD * (until - clock())):
                accepted = await self._accepted(call, outgoing)
            if accepted and call.session is not None:
                async with asyncio.timeout(max(0.0, until - clock() - ASK_S)):
                    await call.session.run()
        except LinkError as error:
            call.machine.lost(str(error))
        except TimeoutError:
            call.machine.lost("there was no more time")
        return call

    async def _accepted(self, call: _Call, outgoing: Outgoing) -> bool:
        links, now = self._around.links, asyncio.get_running_loop().time()
        deadline_s = links.answer_s(call.peer)
        stream = await self._around.transport.open(call.peer, TOPIC, deadline_s)
        hooks = Hooks(
            agreed=lambda: _LastWords(outgoing, call.machine),
            landed=lambda payload, filled: None,
            verify=_nothing_to_verify,
            apply=lambda: None,
        )
        call.session = Session(stream, call.machine, hooks, links, Timing(now, called=True))
        return await call.session.ask()

    # ---- as heir ----------------------------------------------------------------------------

    async def take(self, stream: FrameStream, offer: Offer) -> None:
        """A leaver opened ``stream``; the caller closes it."""
        reason = self._refusal(stream.peer, offer)
        if reason is None:
            self._busy = True
            try:
                await self._inherit(stream, offer)
            finally:
                self._busy = False
            return
        decline = Decline(reason=reason, retry_s=RETRY_S, digest=self._doors.digest())
        deadline_s = self._around.links.deadline_s(stream.peer)
        await stream.send(decline.frame(), deadline_s)
        with suppress(LinkError, PeerFault):
            await stream.receive(deadline_s)  # the leaver reads last and closes

    def _refusal(self, peer: str, offer: Offer) -> DeclineReason | None:
        decided = self._decisions.known(peer, offer.round)
        if decided is not None:
            return decided
        if (reason := self._doors.refusal()) is not None:
            return reason
        if (offer.layout, offer.nbytes) != (self._legacy.layout, self._legacy.nbytes):
            return "layout"
        number, accepted = self._heirlooms
        full = number == self._doors.window() and accepted >= MOST_IN_A_WINDOW
        return "busy" if self._busy or full else None

    async def _inherit(self, stream: FrameStream, offer: Offer) -> None:
        peer, legacy, window = stream.peer, self._legacy, self._doors.window()
        number, accepted = self._heirlooms
        self._heirlooms = (window, accepted + 1 if number == window else 1)
        effort = self._doors.effort()
        ends = list(accumulate(legacy.part_nbytes(part) for part in range(legacy.parts)))
        offload = None if legacy.quick else self._around.offload
        incoming = Incoming(legacy.intake(offer.work, effort), ends, peer, offload)
        accept = Accept(round=offer.round, nbytes=0, work=effort, digest=self._doors.digest())

        def commit() -> bool:
            may = self._doors.refusal() is None
            return may and self._decisions.commit(peer, offer.round)

        machine = Heir(offer, accept, commit)
        hooks = self._hooks(machine, incoming, peer)
        timing = Timing(asyncio.get_running_loop().time())
        session = Session(stream, machine, hooks, self._around.links, timing)
        self._decisions.begin(peer, offer.round)
        try:
            await session.run()
        finally:
            incoming.cancel()
            if machine.end is not End.APPLIED:
                self._decisions.drop(peer, offer.round)

    def _hooks(self, machine: Heir, incoming: Incoming, peer: str) -> Hooks:
        began, round_ = self._around.clock(), machine.offer.round

        found: list[Correction] = []

        async def verify() -> None:
            found.append(await incoming.finish())

        def apply() -> None:
            """Settled at once: what this peer says HAVE to must not depend on its stream."""
            [displacement] = found

            def inherit() -> None:
                self._legacy.inherit(displacement.vector)
                self.heir_once = True
                self._doors.inherited(peer, round_)

            event = ExchangeDone(
                phase="train",
                outcome="inherited",
                partner=peer,
                round=round_,
                seconds=self._around.clock() - began,
                bytes_received=machine.filled,
                distance=displacement.distance,
            )
            self._desk.settle(Settlement(inherit, event, self._doors.step(), returns=None))

        return Hooks(_nothing_to_send, incoming.landed, verify, apply)


async def _nothing_to_verify() -> None:
    raise AssertionError("a leaver receives no payload")


def _nothing_to_send() -> Outgoing:
    raise AssertionError("an heir sends no payload")
