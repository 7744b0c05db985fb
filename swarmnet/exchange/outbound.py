"""One offer of ours under way: what ``hedge`` races and the driver concludes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from swarmnet.errors import LinkError
from swarmnet.exchange.meeting import Meeting
from swarmnet.exchange.pair import Offerer
from swarmnet.exchange.session import Session


@dataclass(eq=False)
class Outbound:
    """A call to one peer, from opening the stream to the end of the meeting (a ``hedge.Call``)."""

    peer: str
    machine: Offerer
    meeting: Meeting
    dial: Callable[[Outbound], Awaitable[Session]]
    session: Session | None = None
    accepted: bool | None = None
    """The partner's answer; False also when it can not be had. None: still asked."""

    async def ask(self) -> bool:
        self.accepted = await self._ask()
        return self.accepted

    async def run(self) -> None:
        """The rest of the meeting, after an ``ask`` that was accepted."""
        assert self.session is not None
        await self.session.run()

    async def withdraw(self) -> None:
        if self.session is not None:
            await self.session.withdraw("another partner was faster")

    async def _ask(self) -> bool:
        try:
            self.session = await self.dial(self)
        except LinkError as error:
            self.machine.lost(str(error))
            return False
        return await self.session.ask()
