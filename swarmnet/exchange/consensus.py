"""The end of a run: scheduled rounds of pure averaging, so that the replicas become one.

Every peer computes the same schedule from its own view of who takes part. The smaller id of a pair
offers, the other waits. A partner that cannot be reached is skipped: what is lost then is a round
of averaging, never the peer.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.meeting import Scheduled
from swarmnet.exchange.pair import End
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.matching import Matching

POLL_S = 0.05
ROUND_PATIENCE_S = 5.0
"""Share of each round in a timetable that all follow. A partner that has reached the phase is
waited for until its round is over there: it may be held up by a lost one in every round before."""
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
    await gossip.questions.ask_all(silent=set())
    roster = await _gather(around, ends_at)
    started = around.clock()
    held = 0
    for index in range(plan.matching.rounds(len(roster))):
        partner = plan.matching.partner(me, roster, index, plan.seed)
        gossip.scheduled = Scheduled(index, partner)
        if partner is not None and around.clock() < ends_at:
            timetable = started + (index + 1) * ROUND_PATIENCE_S
            held += await _meet(gossip, around, timetable, ends_at)
    gossip.scheduled = Scheduled(index=-1)
    return held


async def _gather(around: Surroundings, ends_at: float) -> list[str]:
    """Wait until nobody trains or is about to, or half of the budget is used; then count heads."""
    until = around.clock() + (ends_at - around.clock()) / 2
    # Suspects too: one that died while training leaves everybody's view within three renewals.
    while _workers(around, ("syncing", "training")):
        if around.clock() >= until:
            break
        await asyncio.sleep(POLL_S)
    states = ("training", "consensus")
    # Suspicion is one peer's own view; a roster must come out alike everywhere.
    return sorted([*_workers(around, states), around.transport.me])


def _workers(around: Surroundings, states: tuple[str, ...]) -> list[str]:
    """Live workers, suspects too; visitors without a replica take no part."""
    members = around.membership
    live = members.alive(around.clock(), states, suspects=True)
    return [p for p in live if (status := members.status(p)) and status.role == "worker"]


async def _meet(gossip: Gossip, around: Surroundings, timetable: float, ends_at: float) -> bool:
    """Hold the scheduled meeting; False when the partner is gone or does not come."""
    scheduled = gossip.scheduled
    partner = scheduled.partner
    assert partner is not None
    offering = around.transport.me < partner
    failures = 0
    give_up = math.inf
    # A meeting under way is seen to its end, which its own deadlines bound.
    while not scheduled.met and (around.clock() < min(ends_at, give_up) or not gossip.free):
        if around.membership.is_dead(partner, around.clock()) or failures >= MAX_FAILURES:
            return False
        status = around.membership.status(partner)
        if give_up == math.inf and status is not None and status.state == "consensus":
            give_up = max(timetable, around.clock() + ROUND_PATIENCE_S)
        if gossip.pending.of(partner):
            failures += not await gossip.questions.ask(partner)
        elif offering and gossip.can_offer:
            failures += await gossip.offer(partner, "consensus", scheduled.index) is End.FAILED
        if not scheduled.met:
            await asyncio.sleep(POLL_S)
    return scheduled.met
