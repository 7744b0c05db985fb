"""Open questions: an offerer asks what became of its meetings, an acceptor's ledger answers.

A partner that is silent is not asked but not forgotten either: after a partition it comes back
and still knows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from swarmnet.errors import LinkError, PeerFault
from swarmnet.exchange.ledger import Decisions, Open, Pending
from swarmnet.exchange.links import Links
from swarmnet.exchange.transport import FrameStream, Transport
from swarmnet.wire.messages import Ask, Tell

TOPIC = "ask"


class Questions:
    """Both ends of ``Ask`` and ``Tell``. ``late`` gets a correction that the partner applied."""

    def __init__(
        self,
        transport: Transport,
        links: Links,
        pending: Pending[Any],
        late: Callable[[Open[Any], Any], None],
    ) -> None:
        self.decisions = Decisions()
        self.pending = pending
        self._transport = transport
        self._links = links
        self._late = late

    async def ask_all(self, silent: set[str]) -> None:
        """One try for every partner of an open question, except the silent ones."""
        for peer in self.pending.peers():
            if peer not in silent:
                await self.ask(peer)

    async def ask(self, peer: str) -> bool:
        """Whether ``peer`` answered; what it applied is settled late."""
        questions = self.pending.of(peer)
        try:
            tell = await self._told(peer, tuple(item.round for item in questions))
        except (LinkError, PeerFault):
            return False
        for item, outcome in zip(questions, tell.outcomes, strict=False):
            correction = self.pending.resolve(item, outcome)
            if correction is not None:
                self._late(item, correction)
        return True

    async def serve(self, stream: FrameStream) -> None:
        """Handler of ``TOPIC``. By being asked, an undecided round becomes ``dropped``."""
        deadline_s = self._links.deadline_s(stream.peer)
        try:
            ask = Ask.parse(await stream.receive(deadline_s))
            outcomes = tuple(self.decisions.tell(stream.peer, round_) for round_ in ask.rounds)
            await stream.send(Tell(outcomes=outcomes).frame(), deadline_s)
            with suppress(LinkError, PeerFault):
                await stream.receive(deadline_s)  # the asker reads last and closes
        finally:
            await stream.close()

    async def _told(self, peer: str, rounds: tuple[int, ...]) -> Tell:
        deadline_s = self._links.answer_s(peer)
        stream = await self._transport.open(peer, TOPIC, deadline_s)
        try:
            await stream.send(Ask(rounds=rounds).frame(), deadline_s)
            return Tell.parse(await stream.receive(deadline_s))
        finally:
            await stream.close()
