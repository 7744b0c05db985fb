"""A pipeline in virtual time: real books, trips and letters, and one weight for each stage."""

import asyncio
import random
from collections import deque

import numpy as np

from swarmnet.pipeline.flow import Flow
from swarmnet.pipeline.service import Limits, StageService
from swarmnet.pipeline.stagebook import Place, StageBook
from swarmnet.pipeline.traveller import Traveller
from swarmnet.pipeline.trips import Load, TripBook
from swarmnet.pipeline.works import NOTHING, Answer, Exit
from swarmnet.registry import find
from swarmnet.sim.clock import now
from swarmnet.sim.network import Link, SimNetwork
from swarmnet.sim.swarm import peer_name

ROWS, LENGTH = 2, 3


class Weight:
    """A stage that multiplies by one number: y = w x; the tail's loss is the sum of y."""

    def __init__(self, weight, first, last):
        self.weight, self.first, self.last = weight, first, last
        self.version = 0
        self.sum = 0.0
        self.forwards = 0
        self.waiting = deque()

    def forward(self, entries):
        return [self._exit(entry) for entry in entries]

    def _exit(self, entry):
        self.forwards += 1
        if self.first:
            ids = np.frombuffer(entry.ids, np.int32).reshape(entry.rows, -1)
            x = ids[:, :-1].astype(np.float64).reshape(-1)
        else:
            x = np.frombuffer(entry.received, np.float64)
        y = x * self.weight
        output = NOTHING if self.last else memoryview(y.tobytes())
        loss = float(y.sum()) if self.last else 0.0
        return Exit({"x": x}, self.version, output, loss, entry.rows * entry.length)

    def backward(self, gradients):
        return [self._answer(gradient) for gradient in gradients]

    def _answer(self, gradient):
        x = gradient.handle["x"]
        g = np.ones_like(x) if self.last else np.frombuffer(gradient.payload, np.float64)
        if gradient.counts:
            self.waiting.append((gradient.sample, float(g @ x)))
        return Answer(NOTHING if self.first else memoryview((g * self.weight).tobytes()))

    def weigh(self):
        sample, heavy = self.waiting.popleft()
        self.sum += heavy
        return [sample]

    def drop(self, handle):
        pass


class StagePeer:
    """One stage peer on the simulated network; its work takes ``work_s`` of virtual time."""

    def __init__(self, network, me, place, weight, work_s):
        self.me, self.place, self.work_s = me, place, work_s
        self.network = network
        self.commits = set()
        self.works = Weight(weight, place.stage == 0, place.last)
        self.book = StageBook(place, lambda sample: sample in self.commits)
        limits = Limits(ROWS, LENGTH, 8 * ROWS * LENGTH, 8 * ROWS * LENGTH)
        transport = network.transport(me)
        self.service = StageService(transport, self.book, self.works, self.lane, limits)

    async def lane(self, work, *arguments):
        await self.network.thaw(self.me)
        await asyncio.sleep(self.work_s)
        await self.network.thaw(self.me)
        return work(*arguments)

    async def start(self):
        await self.service.open()
        self.network.own(self.me, asyncio.create_task(self.service.run()))


class Pipeline:
    """``counts[k]`` peers serve stage k with the weight k + 2; one or more trainers."""

    def __init__(
        self, counts, trainers=1, seed=0, latency_s=0.01, work_s=0.01, wiring="round_robin"
    ):
        link = Link(latency_s=latency_s)
        self.network = SimNetwork(lambda a, b: link, seed=seed)
        self.counts, self.wiring, self.seed = counts, wiring, seed
        self.work_s = work_s
        self.peers = {}
        self.down = set()
        self.given = 0
        self.limit = 0
        self.done = []
        for stage, count in enumerate(counts):
            for _ in range(count):
                self.add(stage)
        self.travellers = [self._traveller(number) for number in range(trainers)]

    @property
    def weights(self):
        return [stage + 2.0 for stage in range(len(self.counts))]

    def add(self, stage, work_s=None):
        me = peer_name(len(self.peers))
        place = Place(me, stage, len(self.counts))
        peer = StagePeer(self.network, me, place, self.weights[stage], work_s or self.work_s)
        self.peers[me] = peer
        return peer

    def of(self, stage):
        peers = self.peers.values()
        return [p for p in peers if p.place.stage == stage and p.me not in self.down]

    def view(self):
        return {stage: [p.me for p in self.of(stage)] for stage in range(len(self.counts))}

    def crash(self, peer):
        self.down.add(peer.me)
        self.network.crash(peer.me)

    async def start(self):
        for peer in self.peers.values():
            await peer.start()
        for traveller in self.travellers:
            await traveller.open()
            self.network.own(traveller.book.me, asyncio.create_task(traveller.run()))

    def load(self, number):
        return np.random.default_rng(number).integers(0, 9, (ROWS, LENGTH + 1), dtype=np.int32)

    def expected(self, numbers):
        """The gradient sums of all stages over these loads."""
        total = sum(float(self.load(number)[:, :-1].sum()) for number in numbers)
        product = float(np.prod(self.weights))
        return [total * product / weight for weight in self.weights]

    def sums(self):
        return [sum(p.works.sum for p in self.of(stage)) for stage in range(len(self.counts))]

    async def until(self, ready, within_s=600.0):
        end = now() + within_s
        while not ready():
            assert now() < end, "it did not come to that in time"
            await asyncio.sleep(0.05)

    def _traveller(self, number):
        me = peer_name(900 + number)
        cls = find("wiring", self.wiring)
        rng = random.Random(self.seed * 100 + number)
        wirings = [cls(cls.Config(), rng) for _ in self.counts]
        book = TripBook(me, number + 1, wirings, Flow(len(self.counts), 32, 10_000))
        traveller = Traveller(self.network.transport(me), book, self._next)
        traveller.view = self.view
        traveller.finished = self.done.append
        return traveller

    def _next(self):
        if self.given >= self.limit:
            return None
        self.given += 1
        return Load(ROWS, LENGTH, memoryview(self.load(self.given - 1).tobytes()))
