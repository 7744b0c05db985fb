"""Trips through a simulated pipeline: every sample counts once at every stage, whatever happens."""

import asyncio
import random

import pytest

from swarmnet.pipeline.record import Phase
from swarmnet.sim.clock import run
from tests.unit.pipelines import Pipeline
from tests.unit.seeds import seeds

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


@pytest.mark.parametrize("seed", seeds(6, 12))
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


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_what_is_dropped_before_it_counted_is_sent_again_at_once(stage):
    async def main():
        pipeline = Pipeline((1, 1, 1))
        await pipeline.start()
        pipeline.limit = N
        [peer] = pipeline.of(stage)
        for _ in range(5):
            await pipeline.until(lambda: peer.works.puts_off, step_s=0.003)
            peer.served.lost(tuple(await peer.served.drop()))
        await whole(pipeline)
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)
        [traveller] = pipeline.travellers
        assert set(traveller.book.ledger.causes) == {"void"}

    run(main())


def test_what_is_dropped_while_it_is_differentiated_is_counted_on_request():
    async def main():
        pipeline = Pipeline((1, 1, 1))
        await pipeline.start()
        pipeline.limit = N
        [peer] = pipeline.of(1)
        for _ in range(5):
            await pipeline.until(lambda: turning(peer), step_s=0.003)
            lost = turning(peer)
            peer.served.lost(tuple(lost))
            await pipeline.until(lambda: done_with(peer, lost), step_s=0.001)  # noqa: B023
            for dropped in [one for one in peer.works.puts_off if one[0] in lost]:
                peer.works.puts_off.remove(dropped)
        await whole(pipeline)
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)
        [traveller] = pipeline.travellers
        assert set(traveller.book.ledger.causes) == {"void"}

    run(main())


def turning(peer):
    return [s for s in peer.book.held if peer.book.record(s).phase is Phase.TURNING]


def done_with(peer, samples):
    return all(peer.book.record(sample).phase is not Phase.TURNING for sample in samples)


def test_a_peer_that_comes_back_alone_is_trusted_again_with_each_result():
    async def main():
        pipeline = Pipeline((1, 1))
        await pipeline.start()
        pipeline.limit = N
        await pipeline.until(lambda: pipeline.given >= 10)
        [traveller] = pipeline.travellers
        [peer] = pipeline.of(0)
        pipeline.wall(peer.me, traveller.book.me)
        await asyncio.sleep(5.0)
        pipeline.heal()
        await whole(pipeline, within_s=60.0)
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)

    run(main())


def test_enough_is_under_way_that_nobody_is_idle():
    async def main():
        pipeline = Pipeline((4, 2), work_s=0.5)
        await pipeline.start()
        pipeline.limit = N
        await asyncio.sleep(5.0)
        [traveller] = pipeline.travellers
        assert traveller.book.flow.window >= 6
        await whole(pipeline)
        held_once(pipeline)

    run(main())
