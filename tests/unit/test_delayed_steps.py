"""Delayed updates through a stage's real steps: meetings, late moves, states for joiners.

The stage is a quadratic (its output is its weights, what comes back is L x), so that the law of
B1.6 can be followed exactly: theta_{b+1} = theta_b - eta L theta_{b-1}, at every peer.
"""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from swarmnet.pipeline.past import Past
from swarmnet.sim import clock
from swarmnet.train.passes import Arrival
from swarmnet.train.stage import StageCore
from tests.unit import stages
from tests.unit.stages import VALUES, StageCompany
from tests.unit.tiny_stage import Master, Sgd

RATE = 0.1
CURVATURES = torch.linspace(0.1, 1.0, VALUES, dtype=torch.float64)
START = torch.linspace(-1.0, 2.0, VALUES, dtype=torch.float64)
TOKENS = torch.zeros(1, 2, dtype=torch.int64)


class Weights(nn.Module):
    first, last = True, False

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(START.clone())

    def forward(self, ids, received=None):
        return self.x.expand(1, 1, -1)


class Quadratic(stages.StagePeer):
    """A stage peer whose samples are passes through a real core."""

    def __init__(self, me, company, delayed=True):
        self.core = StageCore(Master(Weights(), Sgd), delayed=delayed)
        self.path = []
        """The weights that serve, at every commit."""
        self.enter(me, company)

    @property
    def tokens(self):
        return self.core.tokens

    @property
    def samples(self):
        return self.core.samples

    @property
    def weights(self):
        return self.core.master.theta.numpy()

    def count(self, sample):
        [one] = self.core.forward([Arrival(sample, TOKENS)])
        self.core.backward([one], [CURVATURES * one.output])
        self.core.weigh()
        self.stepping.counted()

    async def freeze(self):
        await asyncio.sleep(0.003)
        sums = self.core.freeze()
        self.out = SimpleNamespace(
            vector=sums.vector.numpy(), tokens=sums.tokens, samples=sums.samples, sums=sums
        )
        return self.out

    async def put_back(self, sums):
        self.core.put_back(sums.sums)
        self.out = None

    async def discard(self, sums):
        self.core.discard(sums.sums)
        self.out = None

    async def drop(self):
        return self.core.drop()

    async def step(self, mean, commit):
        await asyncio.sleep(0.01)
        self.core.step(torch.from_numpy(mean.copy()), RATE)
        self.commits.append((commit, mean.copy()))
        self.path.append(self.core.master.theta.clone())

    def portrait(self):
        """What a joiner gets, as ``StageSide.tensors`` makes it."""
        self.core.catch_up()
        past = Past.unpack(self.stepping.assembly.past.pack())
        return self.core.master.theta.clone(), past

    def adopt(self, portrait):
        theta, past = portrait
        self.core.load({"theta": theta}, past.step)
        self.stepping.restored(past)


def by_the_law(steps, delayed):
    path = [START, START]
    for _ in range(steps):
        path.append(path[-1] - RATE * CURVATURES * path[-2 if delayed else -1])
    return path[1 + (not delayed) :][:steps]


async def company_of(n, delayed):
    company = StageCompany(0, 6)
    company.peers = [Quadratic(name, company, delayed) for name in stages.NAMES[:n]]
    return await company.open()


async def train(company, batches, first=0):
    """So many batches of six samples of one token, each after the step of the one before."""
    for batch in range(first, first + batches):
        for sample in range(6):
            company.peers[sample % len(company.peers)].count(6 * batch + sample)
        await company.settle(30)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("delayed", [False, True])
def test_the_steps_of_a_stage_follow_the_law_at_every_peer(n, delayed):
    async def main():
        company = await company_of(n, delayed)
        await train(company, 40)
        for peer in company.peers:
            assert len(peer.path) == 40
            for ours, theirs in zip(peer.path, by_the_law(40, delayed), strict=True):
                assert float((ours - theirs).abs().max()) < 1e-12
        assert company.network.bugs == []

    clock.run(main())


def test_a_joiner_and_a_donor_that_moved_early_end_where_the_others_do():
    async def main():
        company = await company_of(2, True)
        await train(company, 5)
        joiner = Quadratic(stages.NAMES[2], company)
        joiner.adopt(company.peers[0].portrait())
        company.peers.append(joiner)
        await joiner.start()
        await train(company, 5, first=5)
        for peer in company.peers:
            peer.core.catch_up()
        for peer in company.peers:
            assert peer.stepping.assembly.past.step == 10
            assert peer.core.version == 10
            assert peer.weights.tobytes() == joiner.weights.tobytes()
        assert joiner.resyncs == 0
        assert not np.allclose(joiner.weights, START)

    clock.run(main())


def test_a_state_that_is_loaded_replaces_a_step_that_waits():
    core = StageCore(Master(Weights(), Sgd), delayed=True)
    core.step(torch.ones(VALUES, dtype=torch.float64), RATE)
    core.load({"theta": 2 * START}, 7)
    core.freeze()
    assert torch.equal(core.master.theta, 2 * START)
    assert core.version == 7
