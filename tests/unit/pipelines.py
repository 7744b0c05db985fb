"""A pipeline in virtual time: real books, trips, letters and steps, and one weight for each stage.

What a process adds is played here: who is seen alive, and how a peer gets its first state.
"""

import asyncio
import random
from collections import Counter, deque
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from swarmnet.errors import PayloadError
from swarmnet.exchange.links import Links
from swarmnet.pipeline.assembly import Place, View
from swarmnet.pipeline.flow import Flow
from swarmnet.pipeline.past import Past
from swarmnet.pipeline.served import ServedStage, Setting, together
from swarmnet.pipeline.service import Limits
from swarmnet.pipeline.steplog import Logged
from swarmnet.pipeline.traveller import Traveller
from swarmnet.pipeline.trip import Load
from swarmnet.pipeline.trips import TripBook
from swarmnet.pipeline.works import NOTHING, Answer, Exit
from swarmnet.registry import find
from swarmnet.sim.clock import now
from swarmnet.sim.network import Link, SimNetwork
from swarmnet.sim.swarm import peer_name
from tests.unit.groups import inline
from tests.unit.stages import VectorCargo

ROWS, LENGTH = 2, 3
LIMITS = Limits(ROWS, LENGTH, 8 * ROWS * LENGTH, 8 * ROWS * LENGTH)
NEVER = 10**12
"""More tokens than any step gathers."""
LIFE = 1
"""Of all trainers: they start in the same second."""
RATE = 1e-6
COPY_S = 0.3
"""A state's way from one peer to another."""
STEP_S = 0.1
"""That of one step's mean gradient, a third of a state."""
FOLLOW_S = 60.0


@dataclass(eq=False)
class Frozen:
    vector: np.ndarray
    tokens: int
    samples: list


class Weight:
    """A stage that multiplies by one number: y = w x; the tail's loss is the sum of y.

    Works, core and all that a peer must know of them in one: what else stands in for it
    (``Pipeline.engine``) has the same ``works``, ``core``, ``cargo``, ``largest``, ``state``.
    """

    largest = 8 * ROWS * LENGTH
    """Bytes of a payload."""

    def __init__(self, weight, first, last):
        self.weight, self.first, self.last = weight, first, last
        self.works = self.core = self
        self.cargo = VectorCargo(values=1)
        self.version = 0
        self.forwards = 0
        self.puts_off = deque()
        self.sum, self.tokens, self.samples = 0.0, 0, []
        self.out = None
        self.broken = False
        """What is sent on is no number."""

    # ---- works --------------------------------------------------------------------------------

    def forward(self, entries):
        return [self._exit(entry) for entry in entries]

    def _exit(self, entry):
        self.forwards += 1
        if self.first:
            ids = np.frombuffer(entry.ids, np.int32).reshape(entry.rows, -1)
            x = ids[:, :-1].astype(np.float64).reshape(-1)
        else:
            x = np.frombuffer(entry.received, np.float64)
        if not np.isfinite(x).all() or x.size != entry.rows * entry.length:
            return PayloadError("no numbers")
        y = x * self.weight
        loss = float(y.sum()) if self.last else 0.0
        handle = {"x": x, "weight": self.weight}
        return Exit(handle, self.version, self._sent(y, self.last), loss, x.size)

    def backward(self, gradients):
        return [self._answer(gradient) for gradient in gradients]

    def _answer(self, gradient):
        x, weight = gradient.handle["x"], gradient.handle["weight"]
        g = np.ones_like(x) if self.last else np.frombuffer(gradient.payload, np.float64)
        if not np.isfinite(g).all() or g.size != x.size:
            return PayloadError("no numbers")
        if gradient.counts:
            self.puts_off.append((gradient.sample, float(g @ x), x.size))
        return Answer(self._sent(g * weight, self.first))

    def _sent(self, values, nobody):
        if nobody:
            return NOTHING
        return memoryview((values * (np.nan if self.broken else 1.0)).tobytes())

    def weigh(self):
        if not self.puts_off:
            return []
        sample, heavy, tokens = self.puts_off.popleft()
        assert sample not in self.samples
        self.sum += heavy
        self.tokens += tokens
        self.samples.append(sample)
        return [sample]

    def drop(self, handle=None):
        """Of a handle, or of all sums."""
        if handle is not None:
            return None
        lost = [*self.samples, *(sample for sample, *_ in self.puts_off)]
        self.sum, self.tokens, self.samples = 0.0, 0, []
        self.puts_off.clear()
        return lost

    # ---- core ---------------------------------------------------------------------------------

    @property
    def waiting(self):
        return len(self.puts_off)

    def freeze(self):
        assert self.out is None
        self.out = Frozen(np.array([self.sum]), self.tokens, self.samples)
        self.sum, self.tokens, self.samples = 0.0, 0, []
        return self.out

    def put_back(self, sums):
        assert sums is self.out
        self.sum += float(sums.vector[0])
        self.tokens += sums.tokens
        self.samples = [*sums.samples, *self.samples]
        self.out = None

    def discard(self, sums):
        assert sums is self.out
        self.out = None

    def step(self, mean, lr):
        self.weight -= lr * float(mean[0])
        self.version += 1

    def state(self):
        return self.weight

    def load(self, weight, version):
        self.weight, self.version, self.out = weight, version, None


class StagePeer:
    """One process: implements ``served.Watch`` and ``stepping.Sight``, fetches states."""

    def __init__(self, pipeline, me, stage, work_s):
        self.pipeline, self.me, self.work_s = pipeline, me, work_s
        self.network = pipeline.network
        self.stage = stage
        self.ready = False
        self.commits = []
        self.taken = []
        """Every step of its weights, also those that mates took before."""
        self.lost_samples = self.resyncs = self.copies = self.followed = 0
        self.placed = False
        self._donors = ()
        self._kept = None
        stages = len(pipeline.counts)
        self.engine = pipeline.engine(stage)
        self.works = self.engine.works
        limits = Limits(ROWS, LENGTH, self.engine.largest, self.engine.largest)
        links = Links()
        tools = SimpleNamespace(
            transport=self.network.transport(me), links=links, offload=inline, clock=now
        )
        pipeline.incarnations += 1
        setting = Setting(
            tools=tools,
            sight=self,
            works=self.works,
            core=self.engine.core,
            lane=self.lane,
            cargo=self.engine.cargo,
            limits=limits,
            incarnation=pipeline.incarnations,
            at_once=pipeline.at_once,
        )
        place = Place(me, stage, stages, pipeline.target)
        self.served = ServedStage(place, setting, self, self.steps)
        self.service, self.book = self.served.service, self.served.book

    def steps(self, place, setting, stage):
        return together(place, setting, stage)

    @property
    def past(self):
        return self.served.past

    async def lane(self, work, *arguments):
        await self.network.thaw(self.me)
        await asyncio.sleep(self.work_s)
        await self.network.thaw(self.me)
        return work(*arguments)

    async def start(self, checkpoint=None):
        self._kept = checkpoint
        await self.served.open()
        for work in (*self.served.tasks(), self._boot()):
            self.network.own(self.me, asyncio.create_task(work))

    def checkpoint(self):
        return self.engine.state(), self.past

    # ---- states ---------------------------------------------------------------------------------

    async def _boot(self):
        """As the role does: a donor's state, the own checkpoint, the seed where nothing began."""
        while not await self._copy():
            newest = self.pipeline.newest_step()
            if self._kept is not None:
                state, past = self._kept
                await self._place(state, past.at(max(past.step, newest)))
                await self.served.go_on()
                break
            if newest == 0:
                await self.served.adopt(Past())
                break
            await asyncio.sleep(0.5)
        self._kept = None
        self.ready, self.ready_at = True, now()

    async def _catch_up(self):
        self.ready = False
        while not await self._copy():
            if not self._mates():
                await self.served.stay()
                break
            await asyncio.sleep(0.5)
        self.ready, self.ready_at = True, now()

    def _mates(self):
        mates = [p for p in self.pipeline.seen(self.stage) if p is not self and p.ready]
        ahead = [p for p in mates if p.past.step >= self.past.step]
        return sorted(ahead, key=lambda p: (p.me not in self._donors, -p.past.step, p.me))

    async def _copy(self):
        """The steps since the own state, else a whole one and the steps since."""
        if not await self._follow():
            for donor in self._reached():
                await self.network.thaw(donor.me)
                state, past = donor.engine.state(), donor.past
                donor.served.log.keep(now() + FOLLOW_S)
                await asyncio.sleep(self.pipeline.copy_s)
                if donor.me not in self.pipeline.down:
                    await self._place(state, Past.unpack(past.pack()))
                    break
            else:
                return False
            self.copies += 1
            self.placed = True
            await self._follow()
        await self.served.go_on()
        return True

    async def _follow(self):
        followed = 0
        while self.placed and self.pipeline.follows:
            step = self.past.step + 1
            kept = (donor.served.log.get(step) for donor in self._reached())
            logged = next((one for one in kept if one is not None), None)
            await asyncio.sleep(STEP_S)
            if logged is None:
                break
            try:
                await self.served.follow(Logged.unpack(logged.pack(), deepcopy(logged.mean)))
            except PayloadError:
                break
            self.taken.append(logged)
            followed += 1
        self.followed += followed
        return followed

    def _reached(self):
        pipeline = self.pipeline
        mates = self._mates()
        return [
            p for p in mates if p.me not in pipeline.down and not pipeline.walled(self.me, p.me)
        ]

    async def _place(self, state, past):
        await self.served.place(past, lambda: self.engine.load(state, past.step))

    # ---- watch and sight ------------------------------------------------------------------------

    def lr(self, past):
        return self.pipeline.rate / past.step

    def stepped(self, commit, own, lr, seconds):
        self.commits.append(commit)
        self.taken.append(commit)
        shares, step = self.pipeline.shares, (self.stage, commit.past.lineage)
        shares[step] += own
        assert shares[step] <= len(commit.ids)
        self.pipeline.judge_step(self, commit)

    def lost(self, samples):
        self.lost_samples += samples

    def behind(self, donors):
        self.resyncs += 1
        self._donors = donors
        self.network.own(self.me, asyncio.create_task(self._catch_up()))

    def view(self):
        steps = {s: n for s, n in self.book.steps.items() if s != self.stage}
        for peer in self.pipeline.peers.values():
            if peer.stage != self.stage and peer.me not in self.pipeline.down:
                steps[peer.stage] = max(steps.get(peer.stage, 0), peer.told_step)
        seen = self.pipeline.seen(self.stage)
        mates = frozenset(p.me for p in seen if p.known_ready) - {self.me}
        return View(mates, steps)

    @property
    def known_ready(self):
        """As the others know it."""
        return self.ready and now() >= self.ready_at + self.pipeline.news_s

    @property
    def told_step(self):
        return self.served.stepping.past.step

    def digest(self):
        return None

    def heard(self, peer, digest):
        pass


class Pipeline:
    """``counts[k]`` peers serve stage k with the weight k + 2; one or more trainers.

    ``target``: tokens behind a step; ``notice_s``: how long a dead or hung peer is thought to live;
    ``news_s``: how long a peer that has its state is thought to have none.
    """

    handover = "direct"
    copy_s = COPY_S
    follows = True
    """Mates that are copied from keep their steps for the joiner."""
    process = StagePeer
    at_once = 1
    compute = Weight

    def __init__(  # noqa: PLR0913
        self,
        counts,
        trainers=1,
        seed=0,
        *,
        latency_s=0.01,
        work_s=0.01,
        wiring="round_robin",
        target=NEVER,
        notice_s=0.0,
        news_s=0.0,
    ):
        link = Link(latency_s=latency_s)
        self.network = SimNetwork(lambda a, b: link, seed=seed)
        self.counts, self.wiring, self.seed = counts, wiring, seed
        self.work_s, self.target, self.notice_s = work_s, target, notice_s
        self.news_s, self.rate = news_s, RATE
        self.peers = {}
        self.incarnations = 0
        self.down = set()
        self.died, self.frozen = {}, {}
        self.walls = Counter()
        self.shares = Counter()
        """What the peers of a stage say that they brought, by the step that has it."""
        self.given = 0
        self.limit = 0
        self.done = []
        self.restored = set()
        """Stages that came back from a checkpoint: what they had taken since is lost."""
        for stage, count in enumerate(counts):
            for _ in range(count):
                self.add(stage)
        self.trainers = 0
        self.travellers = []
        for _ in range(trainers):
            self.add_traveller()

    def engine(self, stage):
        return self.compute(self.weights[stage], stage == 0, stage == len(self.counts) - 1)

    @property
    def weights(self):
        return [stage + 2.0 for stage in range(len(self.counts))]

    def add(self, stage, work_s=None):
        me = peer_name(len(self.peers))
        peer = self.peers[me] = self.process(self, me, stage, work_s or self.work_s)
        return peer

    # ---- who lives ------------------------------------------------------------------------------

    def of(self, stage):
        peers = self.peers.values()
        return [p for p in peers if p.stage == stage and p.me not in self.down]

    def seen(self, stage):
        """Live peers of a stage, and those whose death was not noticed yet."""
        late = now() - self.notice_s
        peers = [p for p in self.peers.values() if p.stage == stage and not self._silent(p)]
        return [p for p in peers if p.me not in self.down or self.died[p.me] > late]

    def _silent(self, peer):
        began, ends = self.frozen.get(peer.me, (0.0, 0.0))
        return began + self.notice_s < now() < ends

    def view(self):
        stages = range(len(self.counts))
        return {stage: [p.me for p in self.seen(stage) if p.known_ready] for stage in stages}

    def newest_step(self):
        return max((p.told_step for p in self.peers.values() if p.ready), default=0)

    # ---- faults ---------------------------------------------------------------------------------

    def crash(self, peer):
        self.down.add(peer.me)
        self.died[peer.me] = now()
        self.network.crash(peer.me)

    def freeze(self, peer, for_s):
        self.frozen[peer.me] = now(), now() + for_s
        self.network.freeze(peer.me, for_s)

    async def restart(self, peer, checkpoint=None):
        """The same identity, a new process."""
        self.network.restart(peer.me)
        self.down.discard(peer.me)
        again = self.peers[peer.me] = self.process(self, peer.me, peer.stage, peer.work_s)
        await again.start(checkpoint)
        return again

    def walled(self, a, b):
        return self.walls[frozenset((a, b))] > 0

    def wall(self, a, b):
        self.walls[frozenset((a, b))] += 1
        self.network.partition(a, b)

    def heal(self):
        for wall, count in self.walls.items():
            for _ in range(count):
                self.network.heal(*wall)
        self.walls.clear()

    def stop(self, traveller):
        self.travellers.remove(traveller)
        self.network.crash(traveller.book.me)

    async def start(self):
        for peer in self.peers.values():
            await peer.start()
        for traveller in self.travellers:
            await self.begin(traveller)

    async def begin(self, traveller):
        await traveller.open()
        self.network.own(traveller.book.me, asyncio.create_task(traveller.run()))

    # ---- samples --------------------------------------------------------------------------------

    def load(self, number):
        return np.random.default_rng(number).integers(0, 9, (ROWS, LENGTH + 1), dtype=np.int32)

    def expected(self, numbers):
        """The gradient sums of all stages over these loads."""
        total = sum(float(self.load(number)[:, :-1].sum()) for number in numbers)
        product = float(np.prod(self.weights))
        return [total * product / weight for weight in self.weights]

    def sums(self):
        return [sum(p.works.sum for p in self.of(stage)) for stage in range(len(self.counts))]

    async def until(self, ready, within_s=600.0, step_s=0.05):
        end = now() + within_s
        while not ready():
            assert now() < end, "it did not come to that in time"
            await asyncio.sleep(step_s)

    async def flush(self, within_s=600.0):
        """Until every sample of the trainers that live is part of a step of every stage."""
        await self.until(lambda: not any(t.book.under_way for t in self.travellers), within_s)
        for peer in self.peers.values():
            peer.served.stepping.flush = True
            peer.served.stepping.counted()
        await self.until(
            lambda: not any(t.book.under_way + t.book.unsettled for t in self.travellers), within_s
        )
        await self.until(lambda: all(ends <= now() for _, ends in self.frozen.values()))
        await asyncio.sleep(10.0)  # who was hung learns what it has missed

    # ---- judgement ------------------------------------------------------------------------------

    def judge_step(self, peer, commit):
        """At every step: no other stage is more than one behind."""
        if peer.served.stepping.flush or self.restored:
            return
        for other in self.peers.values():
            if other.ready and other.me not in self.down and other.stage != peer.stage:
                front = max(p.told_step for p in self.of(other.stage) if p.ready)
                assert commit.past.step <= front + 1

    def judge(self):
        """All that must hold once the storm is over."""
        assert self.network.bugs == []
        for traveller in self.travellers:
            ledger = traveller.book.ledger
            assert ledger.settled == ledger.begun
            assert not ledger.whole
        for stage in range(len(self.counts)):
            self._judge_stage(stage)

    def _judge_stage(self, stage):
        first, *others = live = self.of(stage)
        for peer in others:
            assert peer.past == first.past
            assert peer.engine.state() == first.engine.state()
        counted = [
            int.from_bytes(ids[at : at + 8], "big")
            for _, ids in first.past.commits
            for at in range(0, len(ids), 8)
        ]
        assert len(counted) == len(set(counted)), "a sample counted twice"
        assert first.past.committed == ROWS * LENGTH * len(counted)
        begun = {
            traveller.book.name(number)
            for traveller in self.travellers
            for number in range(traveller.book.ledger.begun)
        }
        if stage not in self.restored:
            assert begun <= set(counted), "a sample is missing"
        for peer in live:
            assert not peer.book.held
            assert peer.engine.core.tokens == 0
            assert peer.served.empty

    # ---- trainers -------------------------------------------------------------------------------

    def add_traveller(self):
        self.trainers += 1
        number = self.trainers
        me = peer_name(900 + number)
        cls = find("wiring", self.wiring)
        rng = random.Random(self.seed * 100 + number)
        wirings = [cls(cls.Config(), rng) for _ in self.counts]
        most = 10_000 if self.target == NEVER else 96
        book = TripBook(me, LIFE, wirings, Flow(len(self.counts), 32, most))
        limits = LIMITS if self.handover == "hub" else None
        traveller = Traveller(self.network.transport(me), book, self._next, limits)
        traveller.view = self.view
        traveller.finished = self.done.append
        self.travellers.append(traveller)
        return traveller

    def _next(self):
        if self.given >= self.limit:
            return None
        self.given += 1
        return Load(ROWS, LENGTH, memoryview(self.load(self.given - 1).tobytes()))
