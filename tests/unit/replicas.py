"""A simulated pipeline whose stage peers step apart: real steps and meetings around one number."""

import asyncio
import random

import numpy as np

from swarmnet.cadence.every_h import EveryH
from swarmnet.exchange.among import Among
from swarmnet.exchange.consensus import Plan
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.links import Links
from swarmnet.exchange.membership import Membership, Status
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.window import Window
from swarmnet.matching.hypercube import Hypercube
from swarmnet.matching.random_pairs import RandomPairs
from swarmnet.pipeline.apart import Apart, Meetings
from swarmnet.sim.book import PhoneBook
from swarmnet.sim.clock import now
from swarmnet.sim.vector import VectorSubject
from tests.unit.groups import inline
from tests.unit.pipelines import LENGTH, ROWS, Frozen, Pipeline, StagePeer, Weight

RENEW_S = 1.0
RATE = 1e-5
TOKENS = ROWS * LENGTH
"""Of one sample."""


class ReplicaWeight(Weight):
    """The weight lives in what meetings exchange. ``added``: what its own steps did to it."""

    def __init__(self, weight, first, last):
        super().__init__(weight, first, last)
        self.subject = VectorSubject(np.array([weight]))
        self.subject.layout = "ab"  # every stage alike: only the view keeps them apart
        self.added = 0.0

    def freeze(self, *, whole=True):
        assert not whole
        return Frozen(*self._taken())

    def _taken(self):
        taken = np.array([self.sum]), self.tokens, self.samples
        self.sum, self.tokens, self.samples = 0.0, 0, []
        return taken

    def discard(self, sums):
        pass

    def step(self, mean, lr):
        increment = -lr * float(mean[0])
        self.subject.live += increment
        self.added += increment
        self.publish()

    def publish(self):
        self.weight = float(self.subject.live[0])
        self.version += 1

    def load(self, weight, version):
        super().load(weight, version)
        self.subject.live[:] = weight


class ReplicaPeer(StagePeer):
    def steps(self, place, setting, stage):
        self.events = []
        self.state = "syncing"
        self._counter = 0
        self._members = Membership(self.me, RENEW_S)
        subject, pipeline = self.works.subject, self.pipeline
        window = Window(
            self.me,
            EveryH(EveryH.Config(h=pipeline.h)),
            RandomPairs(RandomPairs.Config()),
            random.Random(f"{pipeline.seed} {self.me}"),
        )
        desk = Desk(
            subject,
            lambda step, done: gossip.stance == "consensus" or window.welcome_at(step, done),
        )
        around = Surroundings(
            transport=self.network.transport(self.me),
            membership=Among(self._members, lambda status: status.stage == self.stage),
            links=Links(),
            mine=self.status,
            offload=inline,
            emit=self.events.append,
            clock=now,
        )
        gossip = Gossip(around, window, desk, subject, setting.incarnation)
        plan = Plan(Hypercube(Hypercube.Config()), 0, 20.0)
        return Apart(
            Meetings(gossip, desk, subject, around, plan, lambda: 0.0), stage, place.target
        )

    async def start(self, checkpoint=None):
        self.network.own(self.me, asyncio.create_task(self._renew()))
        await super().start(checkpoint)

    async def finish(self):
        self.state = "consensus"
        await self.served.stepping.finish()

    def status(self):
        if self.ready and self.state == "syncing":
            self.state = "training"
        self._counter = max(self._counter + 1, int(1000 * now()))
        step = self.told_step
        return Status(1, self._counter, self.state, "stage", step=step, stage=self.stage)

    async def _renew(self):
        while True:
            await asyncio.sleep(0.1 * RENEW_S)
            self.pipeline.phonebook.write(self.me, self.status())
            for peer, status in self.pipeline.phonebook.read(None, random.Random(0)):
                self._members.observe(peer, status, now())

    def lr(self, past):
        return RATE


class ReplicaPipeline(Pipeline):
    """``share`` samples behind a step, a meeting every ``h`` steps."""

    process = ReplicaPeer
    compute = ReplicaWeight
    follows = False

    def __init__(self, counts, trainers=1, seed=0, share=4, h=2):
        self.phonebook = PhoneBook()
        self.h = h
        super().__init__(
            counts, trainers, seed, wiring="uniform", target=share * TOKENS, notice_s=1.0
        )

    def judge_step(self, peer, commit):
        """A replica has a sample once; the steps of replicas have nothing to do with each other."""
        ids = [sample for taken in peer.commits for sample in taken.ids]
        assert len(ids) == len(set(ids))

    async def settle(self, n):
        """Send ``n`` loads, then step with what is left."""
        self.limit = n
        await self.until(lambda: self.given == n)
        await self.flush()
