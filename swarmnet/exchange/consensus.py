"""The end of a run: pure averaging until the replicas are one.

First a schedule that every peer computes from its own view of who takes part; with nobody lost it
needs the fewest meetings. A partner lost or two views that differ spoil it for whoever notices,
and that peer roams: it meets whom it likes, as all do after the schedule, until the distances that
it measures are below the bound (``agreement``). A peer that is within the bound stays to answer
until everybody that it knows is, so nobody is left with half of the way to go. The budget ends
the phase for everybody, whatever was reached.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

from swarmnet.exchange.agreement import ASKED, CHECKS
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.meeting import Scheduled
from swarmnet.exchange.pair import End
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.matching import Matching
from swarmnet.matching.random_pairs import RandomPairs

POLL_S = 0.05
ROUND_PATIENCE_S = 5.0
"""A partner that takes part but is held up elsewhere is waited for so long, once."""
CALL_BACK_S = 1.0
"""The larger id of a pair waits for the call; then it calls, for one may be unable to."""
MAX_FAILURES = 2
LINGER_S = 1.0
LINGER_CALLS = 4
"""When all that a peer knows are done it stays for a while, for news of one that is not."""
RETRY_S = 0.2
RETRY_FAILED_S = 1.0
HOLDERS = ("worker", "stage")
BOUND = 0.01
"""What disagreement costs in loss grows with its square: a hundredth leaves 1e-4 of the cost."""


@dataclass(frozen=True)
class Plan:
    """What all peers of the phase agree on. ``bound`` is relative to the phase's beginning."""

    matching: Matching
    seed: int
    budget_s: float
    bound: float = BOUND


async def reach_consensus(gossip: Gossip, around: Surroundings, plan: Plan) -> int:
    """Meet until all are within the bound or the budget ends. Returns the meetings held.

    Once in the life of a ``Gossip``. What was measured stands in ``gossip.agreement`` afterwards.
    """
    phase = _Phase(gossip, around, plan)
    await gossip.questions.ask_all(silent=set())
    roster = await phase.gather()
    await phase.follow_schedule(roster)
    await phase.roam(roster)
    gossip.scheduled = Scheduled(index=-1)
    gossip.agreement.over = True
    return gossip.agreement.held


class _Phase:
    """The order of one peer's calls; what they mean is decided by ``Agreement``."""

    def __init__(self, gossip: Gossip, around: Surroundings, plan: Plan) -> None:
        self._gossip = gossip
        self._around = around
        self._plan = plan
        self._agreement = gossip.agreement
        self._agreement.bound = plan.bound
        self._me = around.transport.me
        self._ends_at = around.clock() + plan.budget_s
        # What is measured speaks for the swarm only over partners that are drawn from all.
        self._anybody = RandomPairs(RandomPairs.Config())
        self._random = random.Random(f"{plan.seed}/{self._me}")
        self._call_s = 0.0
        """What an offer took that was declined: the time for which it kept me from answering."""
        self._failures = Counter[str]()
        self._not_before: dict[str, float] = {}

    async def gather(self) -> list[str]:
        """Wait until nobody trains or is about to, or half of the budget is used; count heads."""
        until = self._around.clock() + self._plan.budget_s / 2
        # Suspects too: one that died while training leaves everybody's view within three renewals.
        while set(self._workers(("syncing", "training"))) - self._agreement.seen:
            if self._around.clock() >= until:
                break
            await asyncio.sleep(POLL_S)
        self._agreement.gathering = False
        # Suspicion is one peer's own view; a roster must come out alike everywhere.
        return sorted({*self._workers(("training", "consensus")), *self._agreement.seen, self._me})

    async def follow_schedule(self, roster: list[str]) -> None:
        """Until it is over, or spoilt: by a meeting that is not held, or not as it should be."""
        matching, seed = self._plan.matching, self._plan.seed
        for index in range(matching.rounds(len(roster))):
            partner = matching.partner(self._me, roster, index, seed)
            self._gossip.scheduled = Scheduled(index, partner)
            if partner is not None and not await self._meet(partner):
                return
            if self._agreement.spoilt:
                return

    async def roam(self, roster: list[str]) -> None:
        """Meet at random while the distances are large; then look for others whose are."""
        agreement = self._agreement
        if self._plan.matching.rounds(len(roster)) == 0:
            return
        agreement.checks = min(CHECKS, max(1, len(roster) - 1))
        agreement.roaming = True
        alone_since = None
        # A meeting under way is seen to its end, which its own deadlines bound.
        while (now := self._around.clock()) < self._ends_at or not self._gossip.free:
            others = self._others(roster)
            if agreement.calm:
                others = self._not_done(others)
            if others or self._unsettled() or not self._gossip.free:
                alone_since = None
            elif alone_since is None:
                alone_since = now
            elif now - alone_since > max(LINGER_S, LINGER_CALLS * self._call_s):
                return
            if now < self._ends_at:
                await self._turn(others)
            else:
                agreement.over = True  # else new calls could keep us for ever
            # Who calls is busy: were all to call all the time, nobody would be free to answer.
            listen_s = self._random.uniform(0.0, 2 * self._call_s)
            await asyncio.sleep(POLL_S * (0.5 + self._random.random()) + listen_s)

    def _not_done(self, others: list[str]) -> list[str]:
        if self._agreement.done_in_a_row >= ASKED:
            return []
        return [peer for peer in others if peer not in self._agreement.done]

    def _others(self, roster: list[str]) -> list[str]:
        """Who may still take part: on the roster, in the phone book, or heard of by a call."""
        members, now = self._around.membership, self._around.clock()
        known = {*roster, *self._workers(("consensus",)), *self._agreement.seen}
        known -= {*self._agreement.gone, self._me}
        return sorted(
            peer
            for peer in known
            if self._failures[peer] < MAX_FAILURES
            and not ((status := members.status(peer)) and members.is_dead(peer, now))
            and not (status and status.state == "serving")
        )

    def _unsettled(self) -> list[str]:
        """Partners of open questions that may still answer."""
        asked = self._gossip.pending.peers()
        return [peer for peer in asked if self._failures[peer] < MAX_FAILURES]

    def _workers(self, states: tuple[str, ...]) -> list[str]:
        """Those that hold weights, suspects too; visitors take no part."""
        members = self._around.membership
        live = members.alive(self._around.clock(), states, suspects=True)
        return [p for p in live if (status := members.status(p)) and status.role in HOLDERS]

    def _choose(self, others: list[str]) -> list[str]:
        history = list(self._agreement.history)
        return self._anybody.candidates(self._me, others, history, self._random)

    async def _turn(self, others: list[str]) -> None:
        """Settle what was left open, then make one offer at most."""
        gossip = self._gossip
        for peer in self._unsettled():
            self._failures[peer] += not await gossip.questions.ask(peer)
        now = self._around.clock()  # asking took a while
        ripe = self._choose([p for p in others if self._not_before.get(p, 0.0) <= now])
        if not ripe or not gossip.can_offer:
            return
        peer = ripe[0]
        end = await gossip.offer(peer, "consensus", self._agreement.index)
        answered = self._around.clock()
        if end is End.DECLINED:
            self._call_s = answered - now
        self._failures[peer] = self._failures[peer] + 1 if end is End.FAILED else 0
        wait = {End.FAILED: RETRY_FAILED_S, End.DECLINED: RETRY_S}.get(end, 0.0)
        self._not_before[peer] = answered + wait

    async def _meet(self, partner: str) -> bool:
        """Hold the scheduled meeting; False when the partner is gone or does not come."""
        gossip, scheduled, clock = self._gossip, self._gossip.scheduled, self._around.clock
        calls_at = clock() if self._me < partner else clock() + CALL_BACK_S
        give_up = clock() + ROUND_PATIENCE_S
        failures = 0
        while not scheduled.met and (clock() < min(self._ends_at, give_up) or not gossip.free):
            if self._around.membership.is_dead(partner, clock()) or failures >= MAX_FAILURES:
                return False
            if gossip.pending.of(partner):
                failures += not await gossip.questions.ask(partner)
            elif clock() >= calls_at and gossip.can_offer:
                end = await gossip.offer(partner, "consensus", scheduled.index)
                failures += end is End.FAILED
                # One that has to be called follows other rounds than I do.
                self._agreement.spoilt |= end is End.APPLIED and partner < self._me
                # It has not counted heads yet, and that takes as long as its news of others.
                if end is End.DECLINED and self._agreement.answers[partner] == "phase":
                    give_up = clock() + ROUND_PATIENCE_S
            if not scheduled.met:
                await asyncio.sleep(POLL_S)
        return scheduled.met
