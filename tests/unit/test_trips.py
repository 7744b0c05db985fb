"""Trips through a simulated pipeline: every sample counts once at every stage, whatever happens."""

import asyncio
import random

import pytest

from swarmnet.sim.clock import run
from tests.unit.pipelines import Pipeline

N = 60


async def whole(pipeline, n=N, within_s=600.0):
    """Everything that ``n`` loads ask for, after the last fault has been noticed."""
    pipeline.limit = n
    for _ in range(2):
        await asyncio.sleep(5.0)
        await pipeline.until(
            lambda: sum(t.book.ledger.whole for t in pipeline.travellers) == n, within_s
        )


def held_once(pipeline, n=N):
    for stage in range(len(pipeline.counts)):
        held = [sample for peer in pipeline.of(stage) for sample in peer.book.held]
        assert len(held) == n
        assert len(set(held)) == n


@pytest.mark.parametrize("counts", [(1,), (1, 1), (2, 1, 3), (1, 2, 1, 2)])
@pytest.mark.parametrize("trainers", [1, 3])
def test_without_faults_every_sample_counts_once_and_sums_are_exact(counts, trainers):
    async def main():
        pipeline = Pipeline(counts, trainers, wiring="round_robin")
        await pipeline.start()
        await whole(pipeline)
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)
        for stage in range(len(counts)):
            assert sum(peer.works.forwards for peer in pipeline.of(stage)) == N
        causes = set().union(*(t.book.ledger.causes for t in pipeline.travellers))
        assert causes <= {"busy"}  # several trainers learn their windows from each other
        assert len(pipeline.done) == N

    run(main())


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.5])
def test_a_peer_that_crashes_costs_its_samples_another_attempt(stage, after_s):
    async def main():
        pipeline = Pipeline((2, 2, 2), wiring="round_robin")
        await pipeline.start()
        pipeline.limit = N
        await pipeline.until(lambda: pipeline.given >= 4)
        await asyncio.sleep(after_s)
        pipeline.crash(pipeline.of(stage)[0])
        await whole(pipeline)
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)

    run(main())


@pytest.mark.parametrize("seed", range(12))
def test_crashes_joins_and_walls_in_any_order_leave_every_sample_counted_once(seed):
    async def main():
        chance = random.Random(seed)
        counts = tuple(chance.choice([2, 2, 3]) for _ in range(chance.choice([2, 3, 4])))
        pipeline = Pipeline(counts, trainers=chance.choice([1, 2]), seed=seed)
        await pipeline.start()
        pipeline.limit = N
        for _ in range(6):
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            stage = chance.randrange(len(counts))
            peers = pipeline.of(stage)
            fault = chance.choice(["crash", "join", "wall"])
            if fault == "crash" and len(peers) > 1:
                pipeline.crash(chance.choice(peers))
            elif fault == "join":
                await pipeline.add(stage).start()
            elif fault == "wall" and stage:
                ends = chance.choice(peers).me, chance.choice(pipeline.of(stage - 1)).me
                pipeline.wall(*ends)
        await asyncio.sleep(chance.uniform(0.0, 60.0))
        pipeline.heal()
        await whole(pipeline)
        assert pipeline.network.bugs == []
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)

    run(main())


def test_a_stage_that_nobody_serves_stops_the_supply_until_somebody_comes():
    async def main():
        pipeline = Pipeline((1, 1), wiring="round_robin")
        await pipeline.start()
        pipeline.limit = N
        await pipeline.until(lambda: pipeline.given >= 10)
        pipeline.crash(pipeline.of(1)[0])
        await asyncio.sleep(120.0)
        [traveller] = pipeline.travellers
        assert traveller.book.unserved() == [1]
        assert pipeline.given < N
        assert traveller.book.under_way <= 32
        await pipeline.add(1).start()
        await whole(pipeline)
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)

    run(main())
