"""Open questions: an offerer asks what became of its meetings, an acceptor's ledger answers.

A partner that is silent is not asked but not forgotten either: after a partition it comes back
and still knows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from swarmnet.errors import LinkError, PeerFault
from swarmnet.exchange.ledger import GROUP_ROUNDS, Decisions, Open, Pending
from swarmnet.exchange.links import Links
from swarmnet.exchange.transport import FrameStream, Transport
from swarmnet.wire.messages import Answer, Ask, Tell

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
        self.groups: Callable[[str, str, int], Answer] = lambda asker, leader, number: "unknown"
        """Who answers for decisions of groups: the asker, the leader, the number."""
        self.pending = pending
        self._transport = transport
        self._links = links
        self._late = late

    async def ask_all(self, silent: set[str]) -> None:
        """One try for every partner of an open question, except the silent ones.

        Where a group's leader does not answer, the other members may know.
        """
        for peer in self.pending.peers():
            if peer in silent or not await self.ask(peer):
                await self._ask_witnesses(peer, silent)

    async def ask(self, peer: str) -> bool:
        """Whether ``peer`` answered; what it applied is settled late."""
        return await self._ask(peer, self.pending.of(peer), None)

    async def _ask_witnesses(self, leader: str, silent: set[str]) -> None:
        for item in self.pending.of(leader):
            for peer in item.witnesses:
                if peer not in silent and item in self.pending.of(leader):
                    await self._ask(peer, [item], leader)

    async def _ask(self, peer: str, questions: list[Open[Any]], leader: str | None) -> bool:
        try:
            rounds = tuple(item.round for item in questions)
            tell = await self.told(peer, Ask(rounds=rounds, leader=leader))
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
            leader = ask.leader or self._transport.me
            outcomes = tuple(self._answer(stream.peer, leader, round_) for round_ in ask.rounds)
            await stream.send(Tell(outcomes=outcomes).frame(), deadline_s)
            with suppress(LinkError, PeerFault):
                await stream.receive(deadline_s)  # the asker reads last and closes
        finally:
            await stream.close()

    def _answer(self, asker: str, leader: str, round_: int) -> Answer:
        if round_ >= GROUP_ROUNDS:
            return self.groups(asker, leader, round_)
        return self.decisions.tell(asker, round_)

    async def told(self, peer: str, ask: Ask) -> Tell:
        """Its answer. Raises LinkError, PeerFault."""
        deadline_s = self._links.answer_s(peer)
        stream = await self._transport.open(peer, TOPIC, deadline_s)
        try:
            await stream.send(ask.frame(), deadline_s)
            return Tell.parse(await stream.receive(deadline_s))
        finally:
            await stream.close()
