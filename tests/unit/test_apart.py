"""Stages whose peers step apart: replicas inside a random pipeline that meet and become one."""

import asyncio
import random

import numpy as np
import pytest
import torch

from swarmnet.config import RunFile
from swarmnet.errors import ConfigError
from swarmnet.inner.adamw import AdamW
from swarmnet.outer.noloco import NoLoCo
from swarmnet.sim.clock import run
from swarmnet.train.passes import Arrival
from swarmnet.train.replica import Replica
from swarmnet.train.stage import StageCore
from tests.unit.replicas import TOKENS, ReplicaPipeline
from tests.unit.tiny_stage import LENGTH, Master, by_one_process, cores, model, texts, trip

N = 90
RUN = b'schema = 1\nname = "x"\nmodel = "causal_lm"\n[target]\ntokens = 1\nminutes = 1'


def mean_law(peers):
    """Meetings leave the mean where the own steps put it."""
    live = np.mean([peer.works.subject.live[0] for peer in peers])
    added = np.mean([peer.works.added for peer in peers])
    assert live == pytest.approx(peers[0].stage + 2.0 + added, rel=1e-12)


def every_sample_once(peers, n=N):
    ids = [sample for peer in peers for commit in peer.commits for sample in commit.ids]
    assert len(ids) == len(set(ids)) == n


@pytest.mark.parametrize("counts", [(1,), (1, 1), (2, 2), (3, 1, 2)])
@pytest.mark.parametrize("trainers", [1, 2])
def test_every_sample_is_in_one_step_of_each_stage_and_meetings_keep_the_mean(counts, trainers):
    async def main():
        pipeline = ReplicaPipeline(counts, trainers, seed=trainers)
        await pipeline.start()
        await pipeline.settle(N)
        for stage in range(len(counts)):
            peers = pipeline.of(stage)
            every_sample_once(peers)
            await asyncio.gather(*(peer.finish() for peer in peers))
            mean_law(peers)
            names = {peer.me for peer in peers}
            assert {e.partner for p in peers for e in p.events if e.partner} <= names
        assert pipeline.network.bugs == []

    run(main())


def test_every_step_but_the_last_is_made_of_exactly_one_share():
    async def main():
        pipeline = ReplicaPipeline((2, 3), share=5)
        await pipeline.start()
        await pipeline.settle(N)
        for peer in pipeline.peers.values():
            *whole, last = peer.commits
            assert {commit.tokens for commit in whole} == {5 * TOKENS}
            assert 0 < last.tokens <= 5 * TOKENS
            assert [commit.past.step for commit in peer.commits] == [
                number + 1 for number in range(len(peer.commits))
            ]

    run(main())


def test_replicas_meet_while_they_train_and_become_one_at_the_end():
    async def main():
        pipeline = ReplicaPipeline((4, 2), h=2, share=3, seed=3)
        await pipeline.start()
        await pipeline.settle(3 * N)
        for stage in (0, 1):
            peers = pipeline.of(stage)
            apart = np.ptp([peer.works.subject.live[0] for peer in peers])
            assert apart > 0
            met = [e for p in peers for e in p.events if (e.phase, e.outcome) == ("train", "ok")]
            assert len(met) >= 2 * len(peers)
            await asyncio.gather(*(peer.finish() for peer in peers))
            assert np.ptp([peer.works.subject.live[0] for peer in peers]) < 1e-2 * apart
            assert {peer.works.weight for peer in peers} == {p.works.subject.live[0] for p in peers}
            mean_law(peers)

    run(main())


@pytest.mark.parametrize("seed", range(6))
def test_a_peer_that_dies_takes_its_own_work_with_it_and_nothing_else(seed):
    async def main():
        pipeline = ReplicaPipeline((2, 3), seed=seed)
        await pipeline.start()
        pipeline.limit = N
        source = random.Random(seed)
        await pipeline.until(lambda: pipeline.given >= source.randint(5, 60))
        victim = source.choice(list(pipeline.peers.values()))
        pipeline.crash(victim)
        await pipeline.settle(N)
        for stage, count in enumerate(pipeline.counts):
            kept = [i for p in pipeline.of(stage) for commit in p.commits for i in commit.ids]
            assert len(kept) == len(set(kept))
            lost = {i for commit in victim.commits for i in commit.ids if victim.stage == stage}
            assert len(set(kept) | lost) == N
            assert len(pipeline.of(stage)) == count - (victim.stage == stage)
        assert pipeline.network.bugs == []

    run(main())


@pytest.mark.parametrize("stage", [0, 1])
def test_a_newcomer_goes_on_from_a_replicas_state_and_meets_the_others(stage):
    async def main():
        pipeline = ReplicaPipeline((2, 2), seed=stage)
        await pipeline.start()
        pipeline.limit = N
        await pipeline.until(lambda: pipeline.given >= N // 3)
        late = pipeline.add(stage)
        await late.start()
        await pipeline.settle(N)
        peers = pipeline.of(stage)
        every_sample_once(peers)
        assert late.commits[0].past.step > 1
        assert any(e.outcome == "ok" for e in late.events)
        await asyncio.gather(*(peer.finish() for peer in peers))
        assert np.ptp([peer.works.weight for peer in peers]) < 1e-3 * abs(late.works.added)
        assert pipeline.network.bugs == []

    run(main())


# Laws of the numbers, in float64


def test_one_peer_for_each_stage_is_the_training_of_one_process():
    """With the run's own inner optimizer, clip and all."""
    config = AdamW.Config(clip=0.05)
    chain = [StageCore(Master(part, lambda p: AdamW(config, p))) for part in model(3)]
    alone = [Master(part, lambda p: AdamW(config, p)) for part in model(3)]
    for step in range(5):
        tokens = texts(4, seed=step)
        for number, text in enumerate(tokens):
            trip(chain, {10 * step + number: text})
        count = sum(text[:, 1:].numel() for text in tokens)
        sums = by_one_process([master.module for master in alone], tokens)[1]
        for core, master, gradient in zip(chain, alone, sums, strict=True):
            while core.waiting:
                core.weigh()
            frozen = core.freeze(whole=False)
            core.step(frozen.vector / frozen.tokens, 0.01)
            core.discard(frozen)
            offset = 0
            for parameter in master.module.parameters():
                part = gradient[offset : offset + parameter.numel()] / count
                parameter.grad, offset = part.view(parameter.shape), offset + parameter.numel()
            master.inner.step(0.01)
    for core, master in zip(chain, alone, strict=True):
        assert (core.master.theta - master.theta).abs().max() < 1e-10


def test_what_waits_for_its_weight_gradient_counts_for_the_next_step():
    [core] = cores(1)
    for number, text in enumerate(texts(3)):
        trip([core], {number: text})
    core.weigh()
    first = core.freeze(whole=False)
    assert first.samples == (0,)
    core.discard(first)
    core.step(first.vector / first.tokens, 0.1)
    assert core.freeze().samples == (1, 2)


class Slow:
    """The outer step of a pair, on plain float64 vectors."""

    def __init__(self, core, config):
        self.core, self.outer = core, NoLoCo(config)
        self.outer.start(core.master.theta)

    def said(self):
        theta = self.core.master.theta
        out = theta.new_empty(self.outer.width(), theta.numel())
        self.outer.contribution(theta, out)
        return out

    def meet(self, mean, said):
        theta = self.core.master.theta
        correction = self.outer.correction(mean - said)
        self.outer.solo(theta.clone(), theta)
        self.outer.settle(correction)
        theta += correction
        self.core.publish()


def meet(one, two):
    said = [one.said(), two.said()]
    for replica, own in zip((one, two), said, strict=True):
        replica.meet((said[0] + said[1]) / 2, own)


def trained(rounds, alpha, beta, gamma, seed):
    """Two stages of two replicas, every text on a random way: thetas, and each step's sums."""
    config = NoLoCo.Config(alpha=alpha, beta=beta, gamma=gamma)
    replicas = [[Slow(cores(2)[stage], config) for _ in range(2)] for stage in range(2)]
    source = random.Random(seed)
    for step in range(rounds):
        ways = [source.sample([0, 0, 1, 1], 4) for _ in range(2)]
        for number, text in enumerate(texts(4, seed=step)):
            way = [replicas[stage][ways[stage][number]].core for stage in range(2)]
            trip(way, {10 * step + number: text})
        for pair in replicas:
            for replica in pair:
                sums = replica.core.freeze()
                assert sums.tokens == 2 * 2 * LENGTH
                replica.core.step(sums.vector / sums.tokens, 0.3)
                replica.core.discard(sums)
            meet(*pair)
    return [[replica.core.master.theta for replica in pair] for pair in replicas]


def test_pairs_that_average_after_each_plain_step_train_on_the_mean_gradient():
    """alpha 0 and beta = gamma = 1 make the outer step the plain mean of the replicas."""
    found = trained(6, 0.0, 1.0, 1.0, seed=1)
    alone = cores(2)
    for step in range(6):
        for number, text in enumerate(texts(4, seed=step)):
            trip(alone, {10 * step + number: text})
        for core in alone:
            sums = core.freeze()
            core.step(sums.vector / sums.tokens, 0.3)
            core.discard(sums)
    for pair, core in zip(found, alone, strict=True):
        for theta in pair:
            assert (theta - core.master.theta).abs().max() < 1e-12


def test_the_papers_outer_step_keeps_replicas_near_but_not_the_same():
    for one, two in trained(30, 0.5, 0.7, 0.7, seed=2):
        assert 0 < (one - two).abs().max() < 0.5


def test_a_gradient_is_that_of_the_replica_that_went_forward():
    """One step later its pass is still exact; another replica would give another gradient."""
    core, other = cores(1)[0], cores(1)[0]
    text = texts(1)[0]
    [before] = core.forward([Arrival(0, text)])
    start = core.master.theta.clone()
    for moved, factor in ((core, 0.5), (other, -0.5)):
        moved.master.theta.add_(factor)
        moved.publish()
    core.backward([before], [None])
    sums = core.freeze()
    [exact] = by_one_process(model(1), [text])[1]
    assert (sums.vector - exact).abs().max() < 1e-10
    trip([other], {0: text})
    assert (other.freeze().vector - exact).abs().max() > 1e-3
    assert not torch.equal(start, core.master.theta)


def test_a_step_without_averaging_has_nothing_to_delay():
    with pytest.raises(ConfigError, match='with step = "apart" there is none'):
        RunFile(RUN + b'\n[pipeline]\nstep = "apart"\ndelayed = true')


def test_stages_of_one_shape_do_not_meet():
    config = RunFile(RUN).config
    layouts = {Replica(model(1, torch.float32)[0], config, 0, part).layout for part in range(3)}
    assert len(layouts) == 3
