"""Which stage this peer serves: asks ``placement`` what the view says, and ``lease`` who may go.

Claims are read now and then by everybody, so that periods run everywhere; only the peer that the
view has named for a while claims and goes. A view that trembles moves nobody.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peers.link import Link
from swarmnet.config import RunConfig
from swarmnet.errors import LinkError
from swarmnet.pipeline.lease import MAX_NUMBER, Claim, Lease
from swarmnet.pipeline.placement import Move, Rules, Serving, join, migrate

KEY = "lease"
RENEWALS_PER_PERIOD = 10
RENEWALS_TO_SETTLE = 2
STEADY_RENEWALS = 2
"""For so long the view must name the same move."""
ANYWHERE = ("syncing", "training", "consensus", "serving")


class _Claim(BaseModel):
    """A claim as strangers may write it: under its writer's own subkey."""

    model_config = ConfigDict(extra="forbid", strict=True)
    number: Annotated[int, Field(gt=0, le=MAX_NUMBER)]


class Mover:
    """One stage peer's part in placement. Lives in the network's loop."""

    def __init__(self, link: Link, run: RunConfig, seed: int) -> None:
        self._link = link
        self._stages = run.pipeline.stages
        self._renew_s = run.membership.renew_s
        self._period_s = RENEWALS_PER_PERIOD * self._renew_s
        self._rules = Rules(floor=run.pipeline.floor, cool_down_s=self._period_s)
        self._lease = Lease(
            link.node.me,
            self._period_s,
            RENEWALS_TO_SETTLE * self._renew_s,
            random.Random(seed),
        )
        self._looked = self._read_at = float("-inf")
        self._named: Move | None = None
        self._named_at = 0.0

    def first_stage(self) -> int:
        return join(self._view(None), self._stages, self._link.node.me)

    async def look(self, mine: Serving) -> int | None:
        """Where to go now; None: stay. To be asked often, looks at every renewal."""
        now = time.monotonic()
        if now < self._looked + self._renew_s:
            return None
        self._looked = now
        if now >= self._read_at + self._period_s / 2:
            await self._read()
        move = migrate(self._view(mine), self._stages, self._rules)
        if move is None or move.peer != self._link.node.me:
            self._named = None
            return None
        if self._named is None or self._named.target != move.target:
            self._named, self._named_at = move, now
        if now < self._named_at + STEADY_RENEWALS * self._renew_s:
            return None
        return move.target if await self._leased() else None

    async def _leased(self) -> bool:
        if not await self._read():
            return False
        claim = self._lease.claim(time.monotonic())
        if claim is not None:
            with suppress(LinkError):
                await self._link.node.publish(KEY, {"number": claim.number})
        return self._lease.verdict(time.monotonic()) == "move"

    async def _read(self) -> bool:
        """All claims of the run; False when they could not be read."""
        began, found = time.monotonic(), list[Claim]()
        try:
            records = await self._link.node.lookup(KEY)
        except LinkError:
            return False
        for peer, body in records.items():
            with suppress(ValidationError):
                found.append(Claim(_Claim.model_validate(body).number, peer))
        self._lease.read(found, began)
        self._read_at = began
        return True

    def _view(self, mine: Serving | None) -> list[Serving]:
        members, found = self._link.membership, [mine] if mine is not None else []
        for peer in members.alive(time.monotonic(), ANYWHERE, suspects=True):
            status = members.status(peer)
            if status is None or status.role != "stage" or status.stage >= self._stages:
                continue
            found.append(
                Serving(
                    peer,
                    status.stage,
                    rate=status.serves,
                    demand=status.demand,
                    settled_s=status.settled_s,
                    ready=status.state != "syncing",
                )
            )
        return sorted(found, key=lambda serving: serving.peer)
