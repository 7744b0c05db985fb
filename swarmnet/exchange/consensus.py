"""The end of a run: scheduled rounds of pure averaging, so that the replicas become one.

Every peer computes the same schedule from its own view of who takes part. The smaller id of a pair
offers, the other waits. A partner that cannot be reached is skipped: what is lost then is a round
of averaging, never the peer.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from swarmnet.exchange.driver import Gossip, Scheduled, Surroundings
from swarmnet.exchange.pair import End
from swarmnet.matching import Matching

POLL_S = 0.05
ROUND_PATIENCE_S = 5.0
"""For a partner that has reached the phase but not this round: it is with somebody else."""
MAX_FAILURES = 2


@dataclass(frozen=True)
class Plan:
    """What all peers of the phase agree on."""

    matching: Matching
    seed: int
    budget_s: float


async def reach_consensus(gossip: Gossip, around: Surroundings, plan: Plan) -> int:
    """Meet along the schedule until it or the budget ends. Returns the meetings held."""
    me = around.transport.me
    ends_at = around.clock() + plan.budget_s
    roster = await _gather(around, ends_at)
    held = 0
    for index in range(plan.matching.rounds(len(roster))):
        partner = plan.matching.partner(me, roster, index, plan.seed)
        gossip.scheduled = Scheduled(index, partner)
        if partner is not None and around.clock() < ends_at:
            held += await _meet(gossip, around, ends_at)
    gossip.scheduled = Scheduled(index=-1)
    return held


async def _gather(around: Surroundings, ends_at: float) -> list[str]:
    """Wait until nobody trains any more, or half of the budget is used; then count heads."""
    half = (ends_at - around.clock()) / 2
    until = around.clock() + half
    while around.clock() < until and around.membership.alive(around.clock(), ("training",)):
        await asyncio.sleep(POLL_S)
    others = around.membership.alive(around.clock(), ("training", "consensus"))
    return sorted([*others, around.transport.me])


async def _meet(gossip: Gossip, around: Surroundings, ends_at: float) -> bool:
    """Hold the scheduled meeting; False when the partner is gone or does not come."""
    scheduled = gossip.scheduled
    partner = scheduled.partner
    assert partner is not None
    offering = around.transport.me < partner
    failures = 0
    give_up = math.inf
    while not scheduled.met and around.clock() < min(ends_at, give_up):
        if around.membership.is_dead(partner, around.clock()) or failures >= MAX_FAILURES:
            return False
        status = around.membership.status(partner)
        if give_up == math.inf and status is not None and status.state == "consensus":
            give_up = around.clock() + ROUND_PATIENCE_S
        if offering and gossip.can_offer:
            end = await gossip.offer(partner, "consensus", scheduled.index)
            if end is End.PENDING:
                return True
            failures += end is End.FAILED
        if not scheduled.met:
            await asyncio.sleep(POLL_S)
    return scheduled.met
