"""Which stage this peer serves: asks ``placement`` what the view says, and ``lease`` who may go.

Only the peer that the view names as mover reads and writes claims, and only after it was named for
a while: a view that trembles moves nobody.
"""

from __future__ import annotations

import random
import time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from swarmnet.pipeline.lease import MAX_NUMBER, Claim, Lease
from swarmnet.pipeline.placement import Move, Rules, Serving, join, migrate

from peers.link import Link
from swarmnet.config import RunConfig
from swarmnet.errors import LinkError

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
        self._rules = Rules(
            floor=run.pipeline.floor, cool_down_s=RENEWALS_PER_PERIOD * self._renew_s
        )
        self._lease = Lease(
            link.node.me,
            RENEWALS_PER_PERIOD * self._renew_s,
            RENEWALS_TO_SETTLE * self._renew_s,
            random.Random(seed),
        )
        self._looked = float("-inf")
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
        now = time.monotonic()
        try:
            self._lease.read(await self._claims(), now)
            claim = self._lease.claim(time.monotonic())
            if claim is not None:
                await self._link.node.publish(KEY, {"number": claim.number})
        except LinkError:
            return False
        return self._lease.verdict(time.monotonic()) == "move"

    async def _claims(self) -> list[Claim]:
        found = []
        for peer, body in (await self._link.node.lookup(KEY)).items():
            try:
                found.append(Claim(_Claim.model_validate(body).number, peer))
            except ValidationError:
                continue
        return found

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
