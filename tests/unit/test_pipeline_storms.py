"""A pipeline that trains under faults: every sample is part of one step of each stage, once."""

import asyncio
import itertools
import random
from dataclasses import replace

import pytest

from swarmnet.sim.clock import now, run
from tests.unit.pipelines import LENGTH, ROWS, Pipeline
from tests.unit.seeds import seeds

N = 60
TARGET = 6 * ROWS * LENGTH


def training(counts, trainers=1, seed=0, **options):
    return Pipeline(counts, trainers, seed, target=TARGET, notice_s=4.0, news_s=0.5, **options)


@pytest.mark.parametrize("counts", [(1,), (1, 1), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("trainers", [1, 3])
def test_without_faults_every_sample_is_part_of_one_step_of_each_stage(counts, trainers):
    async def main():
        pipeline = training(counts, trainers)
        await pipeline.start()
        pipeline.limit = N
        await pipeline.until(lambda: pipeline.given == N)
        await pipeline.flush()
        pipeline.judge()
        assert all(peer.resyncs == 0 for peer in pipeline.peers.values())
        assert all(peer.works.forwards <= N for peer in pipeline.peers.values())

    run(main())


async def storm(pipeline, chance, faults=8):
    stages = range(len(pipeline.counts))
    for _ in range(faults):
        await asyncio.sleep(chance.choice([0.0, 0.3, 2.0, 8.0]) * chance.random())
        stage = chance.choice(stages)
        peers = pipeline.of(stage)
        peer = chance.choice(peers)
        fault = chance.choice(["crash", "join", "wall", "freeze", "restart", "trainer", "heal"])
        alike = [p for p in peers if p.ready and p.past == peer.past and p is not peer]
        if fault == "crash" and alike:
            pipeline.crash(peer)
        elif fault == "join" and len(peers) < 5:
            await pipeline.add(stage).start()
        elif fault == "freeze":
            pipeline.freeze(peer, chance.choice([1.0, 5.0, 20.0, 60.0]))
        elif fault == "restart" and alike:
            pipeline.crash(peer)
            await asyncio.sleep(chance.choice([0.0, 1.0, 10.0]))
            await pipeline.restart(peer)
        elif fault == "wall":
            everybody = [p.me for s in stages for p in pipeline.of(s)]
            everybody += [t.book.me for t in pipeline.travellers]
            pipeline.wall(*chance.sample(everybody, 2))
        elif fault == "trainer":
            pipeline.network.freeze(chance.choice(pipeline.travellers).book.me, 15.0)
        elif fault == "heal":
            pipeline.heal()


@pytest.mark.parametrize("seed", seeds(12, 40))
def test_storms(seed):
    async def main():
        chance = random.Random(seed)
        counts = tuple(chance.choice([2, 2, 3]) for _ in range(chance.choice([2, 3])))
        pipeline = training(counts, chance.choice([1, 2]), seed)
        await pipeline.start()
        pipeline.limit = 4 * N
        await storm(pipeline, chance)
        await asyncio.sleep(chance.uniform(0.0, 20.0))
        pipeline.heal()
        await pipeline.until(lambda: pipeline.given == pipeline.limit)
        await pipeline.flush()
        await asyncio.sleep(60.0)
        pipeline.judge()

    run(main())


def test_a_mate_that_the_phone_book_does_not_know_yet_is_known_by_its_own_word():
    async def main():
        pipeline = training((2, 1))
        one, other = pipeline.of(0)
        found = one.view
        one.view = lambda: replace(found(), mates=frozenset())
        await pipeline.start()
        pipeline.limit = N
        await pipeline.until(lambda: pipeline.given == N)
        await pipeline.flush()
        pipeline.judge()
        assert (one.resyncs, other.resyncs) == (0, 0)

    run(main())


class Watched(Pipeline):
    """Remembers when each stage stepped first to each step."""

    stepped_at: dict

    def judge_step(self, peer, commit):
        super().judge_step(peer, commit)
        self.stepped_at.setdefault((peer.stage, commit.past.step), now())

    def longest_pause(self, stage, since):
        times = [at for (of, _), at in self.stepped_at.items() if of == stage and at >= since]
        return max(after - before for before, after in itertools.pairwise(sorted(times)))


async def restarted(pipeline, peer):
    pipeline.crash(peer)
    await asyncio.sleep(1.0)
    await pipeline.restart(peer)


async def joined(pipeline, peer):
    await pipeline.add(1).start()


async def died(pipeline, peer):
    pipeline.crash(peer)


async def hung(pipeline, peer):
    pipeline.freeze(peer, 20.0)


FAULTS = {joined: 3.5, died: 9.0, restarted: 9.0, hung: 9.0}
"""And the longest pause between two steps of any stage."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stage_that_steps_every_two_seconds_pauses_no_longer_than_it_must(fault):
    """A dead or hung peer is missed once it is noticed (4 s); nobody else is waited for."""

    async def main():
        options = {"notice_s": 4.0, "news_s": 1.0, "work_s": 0.05}
        pipeline = Watched((2, 2, 2), target=4 * TARGET, **options)
        pipeline.stepped_at = {}
        await pipeline.start()
        pipeline.limit = 100_000
        await asyncio.sleep(15.0)
        await fault(pipeline, pipeline.of(1)[0])
        await asyncio.sleep(45.0)
        for stage in range(3):
            assert pipeline.longest_pause(stage, 14.0) <= FAULTS[fault]
        pipeline.limit = pipeline.given
        await pipeline.flush()
        await asyncio.sleep(20.0)
        pipeline.judge()

    run(main())
