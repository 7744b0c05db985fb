"""The simulated half of ``matching.py``: the whole exchange in virtual time under each policy.

Every peer holds a vector and meets every ``H`` steps of about a second, as in training; nobody
tells it when. ``Case`` says what is unequal or broken.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from swarmnet.cadence.every_h import EveryH
from swarmnet.config import Choice
from swarmnet.sim import clock
from swarmnet.sim.network import Cut, SimNetwork, SimStream
from swarmnet.sim.peer import PhoneBook, SimOptions, SimPeer
from swarmnet.sim.vector import disagreement

H = 4
WARM_UP_S = 30.0
CALM = 1e-10
"""Below this share of the first disagreement rounding begins to count."""


@dataclass(frozen=True)
class Case:
    """One swarm. ``slow``: the first peer's steps take so many times as long."""

    name: str
    peers: int
    seconds: float
    slow: float = 1.0
    lossy: float = 0.0
    drift: float = 0.0


@dataclass(frozen=True)
class Figures:
    """``rate``: how fast the variance falls, as -ln(V / V0); NaN with drift.

    ``apart_s``: the longest time until the meetings since its start joined all peers.
    ``stationary``: root mean square disagreement in the second half, in steps of drift.
    """

    rate_per_exchange: float
    rate_per_second: float
    rate_per_kbyte: float
    stationary: float
    exchanges_per_window: float
    offers_per_exchange: float
    unevenness: float
    apart_s: float
    slow_met: float
    slow_partners: int


class LossyNetwork(SimNetwork):
    """Breaks a share of the streams after a random number of bytes."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self._share = share
        self._chance = random.Random(seed)

    async def connect(self, me: str, peer: str, topic: str) -> SimStream:
        stream = await super().connect(me, peer, topic)
        if self._chance.random() < self._share:
            sender = self._chance.choice((me, peer))
            stream.wire.cut = Cut(me, sender, self._chance.randrange(600), topic)
        return stream


class Swarm:
    """The peers of one case under one policy, and what they have done so far."""

    def __init__(self, case: Case, policy: Choice, seed: int) -> None:
        network = LossyNetwork(case.lossy, seed)
        cadence = EveryH(EveryH.Config(h=H))
        options = SimOptions(policy.build("matching"), cadence, drift=case.drift)
        book = PhoneBook()
        self.offers = 0
        self.peers: list[SimPeer] = []
        self._met: list[tuple[float, str, str]] = []
        for index in range(case.peers):
            own = replace(options, step_s=case.slow) if index == 0 else options
            peer = SimPeer(_name(index), network, book, own, 1000 * seed + index)
            self._count_offers(peer)
            self.peers.append(peer)

    async def run(self, case: Case) -> Figures:
        for peer in self.peers:
            await peer.start()
        start, squares = _variance(self.peers), list[float]()
        ended = variance = 0.0
        while clock.now() < case.seconds:
            await asyncio.sleep(H / 2)
            squares.append(_variance(self.peers))
            if ended == 0.0:
                variance = squares[-1]
                ended = clock.now() if variance <= CALM**2 * start else 0.0
        meetings = self._met
        until = ended or case.seconds
        early = [meeting for meeting in meetings if meeting[0] <= until]
        exchanges = 2 * len(early) / len(self.peers)
        sent = self._bytes() / len(self.peers) * len(early) / len(meetings)
        fallen = -math.log(variance / start) if case.drift == 0 else math.nan
        slow = [partner for _, a, b in meetings for partner in _other(a, b, self.peers[0].me)]
        windows = sum(peer.window.number for peer in self.peers)
        return Figures(
            rate_per_exchange=fallen / exchanges,
            rate_per_second=fallen / until,
            rate_per_kbyte=1e3 * fallen / sent,
            stationary=math.sqrt(float(np.mean(squares[len(squares) // 2 :])))
            if case.drift
            else math.nan,
            exchanges_per_window=2 * len(meetings) / windows,
            offers_per_exchange=self.offers / len(meetings),
            unevenness=self._unevenness(meetings),
            apart_s=self._apart_s(meetings),
            slow_met=len(slow) / max(1, self.peers[0].window.number),
            slow_partners=len(set(slow)),
        )

    def _count_offers(self, peer: SimPeer) -> None:
        offer = peer.gossip.offer

        async def counted(partner: str, *arguments: object) -> object:
            self.offers += 1
            end = await offer(partner, *arguments)  # type: ignore[arg-type]
            if end.value == "ok":
                self._met.append((clock.now(), peer.me, partner))
            return end

        peer.gossip.offer = counted  # type: ignore[method-assign, assignment]

    def _bytes(self) -> int:
        return sum(event.bytes_sent for peer in self.peers for event in peer.events)

    def _unevenness(self, meetings: list[tuple[float, str, str]]) -> float:
        """Standard deviation over mean of the meetings of a pair, all pairs counted."""
        counts = Counter(frozenset(pair) for _, *pair in meetings)
        names = [peer.me for peer in self.peers]
        all_counts = [counts[frozenset(pair)] for pair in combinations(names, 2)]
        return float(np.std(all_counts) / np.mean(all_counts))

    def _apart_s(self, meetings: list[tuple[float, str, str]]) -> float:
        longest, since = 0.0, WARM_UP_S
        groups: dict[str, frozenset[str]] = {}
        for time, a, b in meetings:
            if time < since:
                continue
            joined = groups.get(a, frozenset([a])) | groups.get(b, frozenset([b]))
            groups.update(dict.fromkeys(joined, joined))
            if len(joined) == len(self.peers):
                longest, since, groups = max(longest, time - since), time, {}
        return max(longest, clock.now() - since)


def measure(case: Case, policy: Choice, seed: int) -> Figures:
    async def main() -> Figures:
        return await Swarm(case, policy, seed).run(case)

    return clock.run(main())


def scheduled_rate(policy: Choice, n: int, rounds: int, seed: int) -> float:
    """-ln(V / V0) per round of the schedule, everybody meeting at once; inf if it gets exact."""
    matching = policy.build("matching")
    roster = [_name(index) for index in range(n)]
    vectors = np.random.default_rng(seed).normal(size=(n, 64))
    start = _spread(vectors)
    for done in range(rounds):
        partners = [matching.partner(me, roster, done, seed) or me for me in roster]
        vectors = (vectors + vectors[[roster.index(p) for p in partners]]) / 2
        if _spread(vectors) < CALM**2 * start:
            return math.inf if done + 1 < n.bit_length() else -2 * math.log(CALM) / (done + 1)
    return -math.log(_spread(vectors) / start) / rounds


def _spread(vectors: np.ndarray) -> float:
    return float(np.mean((vectors - vectors.mean(axis=0)) ** 2))


def _variance(peers: list[SimPeer]) -> float:
    return disagreement([peer.subject.live for peer in peers]) ** 2


def _other(a: str, b: str, me: str) -> list[str]:
    return [b] if a == me else [a] if b == me else []


def _name(index: int) -> str:
    return "peer" + chr(97 + index // 26) * 2 + chr(97 + index % 26) * 2
