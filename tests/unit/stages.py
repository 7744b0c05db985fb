"""Peers of one stage around plain vectors: their real steps over the simulated network.

A sample's gradient follows from its id, so whoever sees which samples a step claims can say what
its mean must be.
"""

import asyncio
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace

import numpy as np

from swarmnet.exchange.links import Links
from swarmnet.exchange.subject import Correction
from swarmnet.pipeline.assembly import Assembly, Place, View
from swarmnet.pipeline.past import Past
from swarmnet.pipeline.stepping import Company, Stepping
from swarmnet.sim import clock
from swarmnet.sim.network import SimNetwork
from tests.unit.groups import NAMES, floats, inline

PART = 3
VALUES = 14
TELL_S = 0.05
RENEW_S = 2.0
NOTICE_S = 6.0
"""How long a dead peer counts as alive."""
PLACE = Place("", 0, 1, 0, patience_s=8.0, turn_s=3.0)


def tokens_of(sample):
    return 1 + sample % 7


@cache
def gradient(sample):
    """Summed over the sample's tokens."""
    return np.random.default_rng(sample).normal(size=VALUES)


@dataclass(eq=False)
class Frozen:
    vector: np.ndarray
    tokens: int
    samples: list


class VectorCargo:
    """Per-token means of float64 sums in small parts."""

    whole = True
    ready_made = True
    quick = True

    def __init__(self, values=VALUES, part=PART):
        self.layout = "ab"
        self.values, self.part = values, part
        self.parts = -(-values // part)
        self.nbytes = 8 * values

    def span(self, part):
        return slice(part * self.part, min(self.values, (part + 1) * self.part))

    def part_nbytes(self, part):
        span = self.span(part)
        return 8 * (span.stop - span.start)

    def encode(self, frozen, part):
        vector = np.asarray(frozen.vector)[self.span(part)]
        return memoryview((vector / max(1, frozen.tokens)).tobytes())

    def blend(self, frozen, me, works):
        return VectorBlend(self, frozen, me, works)


class VectorBlend:
    def __init__(self, cargo, frozen, me, works):
        self._cargo, self._frozen, self._me, self._works = cargo, frozen, me, works
        self._mean = np.full(cargo.values, np.nan)

    def take(self, part, payloads):
        self._mean[self._cargo.span(part)] = self._of(part, payloads)

    def fuse(self, part, payloads):
        return memoryview(self._of(part, payloads).tobytes())

    def adopt(self, part, mean):
        self._mean[self._cargo.span(part)] = floats(mean)

    def finish(self):
        assert np.isfinite(self._mean).all(), "a part is missing"
        return Correction(self._mean, 0.0)

    def _of(self, part, payloads):
        values = {**payloads, self._me: self._cargo.encode(self._frozen, part)}
        total = sum(self._works.values())
        return sum(floats(values[peer]) * (self._works[peer] / total) for peer in sorted(values))


class StagePeer:
    """Implements ``stepping.Stage`` and ``stepping.Sight``."""

    def __init__(self, me, company):
        self.weights = np.zeros(VALUES)
        self.sums, self.tokens, self.samples = np.zeros(VALUES), 0, []
        self.enter(me, company)

    def enter(self, me, company):
        self.me = me
        self.company = company
        self.crashed = False
        self.commits = []
        self.out = None
        self.gone = []
        """What was told to be lost."""
        self.resyncs = 0
        links = Links()
        links.deadline_s = links.answer_s = lambda peer: 4.0
        tools = SimpleNamespace(
            transport=company.network.transport(me), links=links, offload=inline, clock=clock.now
        )
        place = replace(PLACE, me=me, target=company.target)
        company_ = Company(tools, self, self, VectorCargo(), 1)
        self.stepping = Stepping(company_, Assembly(place, Past()))

    async def start(self):
        await self.stepping.open()
        self.company.network.own(self.me, asyncio.create_task(self.stepping.run()))
        self.company.network.own(self.me, asyncio.create_task(self._tell()))

    def count(self, sample):
        """As a stage peer does with a microbatch: what counts already is not added."""
        known = sample in self.samples or (self.out is not None and sample in self.out.samples)
        if self.stepping.syncing:
            self.gone.append(sample)
        elif not known and not self.stepping.committed(sample):
            self.sums += gradient(sample)
            self.tokens += tokens_of(sample)
            self.samples.append(sample)
            self.stepping.counted()

    async def _tell(self):
        """Stands for the letters between mates."""
        told, again_at = None, 0.0
        while True:
            await self.company.network.thaw(self.me)
            tally = self.stepping.tally()
            if tally is not None and (tally != told or clock.now() > again_at):
                told, again_at = tally, clock.now() + RENEW_S
                for peer in self.company.alive:
                    if peer is not self and not self.company.walled(self.me, peer.me):
                        peer.stepping.hear(self.me, tally)
            await asyncio.sleep(TELL_S)

    # ---- the stage ------------------------------------------------------------------------------

    async def freeze(self):
        assert self.out is None
        await asyncio.sleep(0.003)
        self.out = Frozen(self.sums, self.tokens, self.samples)
        self.sums, self.tokens, self.samples = np.zeros(VALUES), 0, []
        return self.out

    async def put_back(self, sums):
        assert sums is self.out
        self.out = None
        self.sums += sums.vector
        self.tokens += sums.tokens
        self.samples += sums.samples
        await asyncio.sleep(0.001)

    async def discard(self, sums):
        assert sums is self.out
        self.out = None
        await asyncio.sleep(0)

    async def drop(self):
        samples = self.samples
        self.sums, self.tokens, self.samples = np.zeros(VALUES), 0, []
        await asyncio.sleep(0)
        return samples

    async def step(self, mean, commit):
        await asyncio.sleep(0.01)
        self.weights = self.weights - 0.1 * mean
        self.commits.append((commit, mean.copy()))

    def lost(self, samples):
        self.gone += samples

    def behind(self, donors):
        self.resyncs += 1
        self.company.network.own(self.me, asyncio.create_task(self._fetch(donors)))

    async def _fetch(self, donors):
        while True:
            await asyncio.sleep(0.5)
            await self.company.network.thaw(self.me)
            for donor in self.company.alive:
                if donor is not self and donor.stepping.settled:
                    if donor.stepping.assembly.past.rank < self.stepping.assembly.past.rank:
                        continue
                    self.weights = donor.weights.copy()
                    self.commits = list(donor.commits)
                    self.stepping.restored(Past.unpack(donor.stepping.assembly.past.pack()))
                    return

    # ---- the sight ------------------------------------------------------------------------------

    def view(self):
        return View(self.company.seen(self.me), self.company.others)

    def digest(self):
        return None

    def heard(self, peer, digest):
        pass


class StageCompany:
    """All peers of one stage, and the trainer that counts what became of its samples."""

    def __init__(self, n, target, link=None):
        self.network = SimNetwork(link) if link else SimNetwork()
        self.target = target
        self.others = {}
        self.peers = [StagePeer(name, self) for name in NAMES[:n]]
        self.died = {}
        self.sent = []
        self.walls = {}

    async def open(self):
        for peer in self.peers:
            await peer.start()
        return self

    def __getitem__(self, name):
        return self.peers[NAMES.index(name)]

    @property
    def alive(self):
        return [peer for peer in self.peers if not peer.crashed]

    def seen(self, me):
        """Who counts as alive: those that were not dead or out of reach for long."""
        late = clock.now() - NOTICE_S
        return frozenset(
            peer.me
            for peer in self.peers
            if peer.me != me
            and self.died.get(peer.me, clock.now()) > late
            and self.walls.get(frozenset((me, peer.me)), clock.now()) > late
        )

    def crash(self, name):
        if not self[name].crashed:
            self[name].crashed = True
            self.died[name] = clock.now()
            self.network.crash(name)

    def walled(self, a, b):
        return frozenset((a, b)) in self.walls

    def part(self, side):
        """Nobody of these reaches anybody else, until ``heal``."""
        for a in side:
            for b in NAMES[: len(self.peers)]:
                if b not in side:
                    self.walls[frozenset((a, b))] = clock.now()
                    self.network.partition(a, b)

    def heal(self):
        for wall in self.walls:
            self.network.heal(*wall)
        self.walls = {}

    def send(self, shares):
        """Sample ids to peers: {peer number: ids}."""
        for number, samples in shares.items():
            for sample in samples:
                if sample not in self.sent:
                    self.sent.append(sample)
                if not self.peers[number].crashed:
                    self.peers[number].count(sample)

    # ---- afterwards -----------------------------------------------------------------------------

    async def settle(self, seconds=90.0):
        """Until nothing is in doubt any more, for so long at most."""
        until = clock.now() + seconds
        while clock.now() < until:
            await asyncio.sleep(2.0)
            if self.quiet:
                return

    @property
    def quiet(self):
        """Everybody stands at the same step and holds nothing, or waits for more samples."""
        alive = self.alive
        pasts = {peer.stepping.assembly.past for peer in alive}
        settled = all(p.stepping.settled and p.stepping.circle.free and not p.out for p in alive)
        total = sum(peer.tokens for peer in alive)
        flushed = any(peer.stepping.assembly.flush for peer in alive)
        return len(pasts) <= 1 and settled and total < (1 if flushed else self.target)

    def missing(self):
        """What a trainer sends again: samples that no live peer holds and no step has."""
        held = {s for p in self.alive for s in p.samples}
        held |= {s for p in self.alive if p.out for s in p.out.samples}
        return [s for s in self.sent if s not in held and not self.alive[0].stepping.committed(s)]

    async def finish(self):
        """Lost samples go to who lives until all are in a step."""
        for _ in range(8):
            alive = self.alive
            if self.counted() == sorted(self.sent) and self.quiet:
                return
            for number, sample in enumerate(self.missing()):
                alive[number % len(alive)].count(sample)
            for peer in alive:
                peer.stepping.assembly.flush = True
                peer.stepping.counted()
            await self.settle(60)

    def judge(self):
        """The same steps everywhere, bit for bit, each the mean of exactly what it claims."""
        assert self.network.bugs == []
        first = self.alive[0]
        for peer in self.alive:
            assert peer.stepping.settled, f"{peer.me} still waits"
            assert peer.stepping.assembly.past == first.stepping.assembly.past
            assert peer.weights.tobytes() == first.weights.tobytes()
            assert peer.stepping.circle.free
        counted = [sample for commit, _ in first.commits for sample in commit.ids]
        assert len(counted) == len(set(counted)), "a sample counted twice"
        for commit, mean in first.commits:
            assert commit.tokens == sum(map(tokens_of, commit.ids))
            exact = sum(map(gradient, commit.ids)) / commit.tokens
            assert np.abs(mean - exact).max() < 1e-12

    def counted(self):
        return sorted(sample for commit, _ in self.alive[0].commits for sample in commit.ids)
