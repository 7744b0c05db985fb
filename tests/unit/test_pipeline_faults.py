"""Single faults of a pipeline, each with what it may cost (laws B4.5 to B4.7 among them)."""

import asyncio
from collections import Counter

import pytest

from swarmnet.sim.clock import now, run
from swarmnet.sim.network import Cut
from swarmnet.wire import Kind
from tests.unit.pipelines import LENGTH, ROWS, Pipeline

N = 60
TARGET = 6 * ROWS * LENGTH


async def over(pipeline, rest_s=20.0):
    await pipeline.until(lambda: pipeline.given == pipeline.limit)
    await pipeline.flush()
    await asyncio.sleep(rest_s)
    pipeline.judge()


def causes(pipeline):
    return sum((t.book.ledger.causes for t in pipeline.travellers), Counter())


@pytest.mark.parametrize("when", ["receive", "compute", "reply"])
def test_a_crash_in_the_middle_of_a_forward_costs_the_stages_before_it_no_forward(when):
    async def main():
        pipeline = Pipeline((1, 2, 1), target=TARGET, notice_s=3.0, work_s=0.05)
        await pipeline.start()
        pipeline.limit = N
        victim = pipeline.of(1)[0]
        if when == "receive":
            await pipeline.until(lambda: victim.book.load[0] > 0)
        elif when == "compute":
            await pipeline.until(lambda: victim.book.load[1] > victim.book.load[0])
        else:
            await pipeline.until(lambda: victim.works.forwards == 3)
        pipeline.crash(victim)
        await over(pipeline)
        assert pipeline.of(0)[0].works.forwards == N
        assert sum(causes(pipeline).values()) > 0

    run(main())


@pytest.mark.parametrize("sender", [0, 1, 2])
@pytest.mark.parametrize("after_bytes", [0, 1, 300, 1000, 4000])
def test_letters_that_are_lost_with_a_line_count_nothing_twice(sender, after_bytes):
    async def main():
        pipeline = Pipeline((1, 1, 1), target=TARGET, notice_s=3.0)
        for stage in range(3):
            peer = pipeline.of(stage)[0].me
            if stage == sender:
                pipeline.network.cuts += [Cut(peer, peer, after_bytes, "post") for _ in range(2)]
        await pipeline.start()
        pipeline.limit = N
        await over(pipeline)
        assert all(peer.works.forwards <= N + 8 for peer in pipeline.peers.values())

    run(main())


def test_a_hung_peer_loses_its_share_and_gets_it_back():
    async def main():
        pipeline = Pipeline((1, 2), target=TARGET, notice_s=1e9, work_s=0.05, wiring="swarm")
        await pipeline.start()
        pipeline.limit = 100_000
        await asyncio.sleep(20.0)
        hung, other = pipeline.of(1)
        share = _share(pipeline, hung)
        assert 0.3 < share() < 0.7
        pipeline.freeze(hung, 120.0)
        await asyncio.sleep(15.0)
        before = other.works.forwards, _asked(hung, pipeline)
        await asyncio.sleep(100.0)
        asked = _asked(hung, pipeline) - before[1]
        assert asked <= 0.01 * (other.works.forwards - before[0]) + 3
        await asyncio.sleep(90.0)
        share = _share(pipeline, hung)
        await asyncio.sleep(30.0)
        assert share() > 0.3

    run(main())


def _share(pipeline, peer):
    peers = pipeline.of(peer.stage)
    before = {p: p.works.forwards for p in peers}

    def share():
        done = {p: p.works.forwards - before[p] for p in peers}
        return done[peer] / max(1, sum(done.values()))

    before = dict.fromkeys(peers, 0) if now() < 30 else before
    return share


def _asked(peer, pipeline):
    """Picks of it that went out: what its trainer waits for or has given up."""
    return causes(pipeline)["late"] + causes(pipeline)["lost"] + causes(pipeline)["unreached"]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_peer_that_sends_nonsense_is_noted_and_replaced_and_nothing_of_it_counts(stage):
    async def main():
        pipeline = Pipeline((2, 2, 2), target=TARGET)
        bad = pipeline.of(stage)[0]
        bad.works.broken = True
        await pipeline.start()
        pipeline.limit = N
        await over(pipeline)
        noted = sum((Counter(p.service.refusals) for p in pipeline.peers.values()), Counter())
        assert set(noted) == {bad.me}
        assert all(p.works.weight == p.works.weight for p in pipeline.peers.values())

    run(main())


def test_a_dead_stage_costs_bounded_memory_and_no_letters():
    async def main():
        pipeline = Pipeline((2, 1), target=TARGET, notice_s=3.0)
        await pipeline.start()
        pipeline.limit = 10_000
        await asyncio.sleep(3.0)
        pipeline.crash(pipeline.of(1)[0])
        await asyncio.sleep(10.0)
        frames = Counter(pipeline.network.traffic.frames)
        begun = pipeline.given
        await asyncio.sleep(300.0)
        assert pipeline.given == begun
        sent = Counter(pipeline.network.traffic.frames) - frames
        assert sent[Kind.FORWARD] + sent[Kind.RESUME] == 0
        for peer in pipeline.of(0):
            assert len(peer.book.held) + peer.book.load[1] <= 128

    run(main())


def test_peers_that_trainers_left_behind_take_new_samples_for_ever():
    """Trainers die in the middle of trips whose next stage is dead: nobody forgets those."""

    async def main():
        pipeline = Pipeline((1, 1), trainers=6, target=TARGET, notice_s=3.0)
        await pipeline.start()
        pipeline.limit = 10_000
        await asyncio.sleep(1.0)
        first, second = pipeline.of(0)[0], pipeline.of(1)[0]
        checkpoint = second.checkpoint()
        pipeline.crash(second)
        for traveller in list(pipeline.travellers):
            pipeline.stop(traveller)
        left = first.book.load[1]
        assert left > 5
        pipeline.restored.add(1)
        await pipeline.restart(second, checkpoint)
        first.book.place = type(first.book.place)(first.me, 0, 2, max_held=left)
        again = pipeline.add_traveller()
        pipeline.limit = pipeline.given + N
        await pipeline.begin(again)
        await over(pipeline)

    run(main())


def test_a_peer_five_times_slower_is_not_waited_for():
    async def main():
        pipeline = Pipeline((1, 2), target=TARGET, work_s=0.02, wiring="swarm")
        await pipeline.start()
        slow = pipeline.add(1, work_s=0.1)
        await slow.start()
        pipeline.limit = 300
        await pipeline.until(lambda: pipeline.given == pipeline.limit, 60.0)
        await over(pipeline)
        assert slow.resyncs <= 1
        assert 0 < slow.works.forwards < 0.2 * 300

    run(main())
