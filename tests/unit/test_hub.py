"""The trainer as hub: the same sums as by the direct way, no stage peer speaks to another one."""

import asyncio
import random

import pytest

from swarmnet.errors import MessageError
from swarmnet.pipeline.acts import Say
from swarmnet.pipeline.hub import Hub
from swarmnet.sim.clock import run
from swarmnet.wire.letters import Backward, Forward, Receipt, Resume
from tests.unit.pipelines import LENGTH, LIMITS, ROWS, Pipeline
from tests.unit.test_pipeline_storms import TARGET, storm
from tests.unit.test_trips import N, held_once, whole


class HubPipeline(Pipeline):
    handover = "hub"


@pytest.mark.parametrize("counts", [(1,), (1, 1), (2, 1, 3), (1, 2, 1, 2)])
def test_every_sample_counts_once_sums_are_exact_and_only_the_trainer_is_spoken_to(counts):
    async def main():
        pipeline = HubPipeline(counts)
        await pipeline.start()
        [traveller] = pipeline.travellers
        stages = [peer.me for peer in pipeline.peers.values()]
        for one in stages:
            for other in stages:
                if one < other:
                    pipeline.network.partition(one, other)
        await whole(pipeline)
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)
        for stage in range(len(counts)):
            assert sum(peer.works.forwards for peer in pipeline.of(stage)) == N
        assert traveller.book.ledger.causes == {}
        assert pipeline.network.bugs == []

    run(main())


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.5])
def test_a_peer_that_crashes_is_replaced_with_the_same_input(stage, after_s):
    async def main():
        pipeline = HubPipeline((2, 2, 2))
        await pipeline.start()
        pipeline.limit = N
        await pipeline.until(lambda: pipeline.given >= 4)
        await asyncio.sleep(after_s)
        pipeline.crash(pipeline.of(stage)[0])
        await whole(pipeline)
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)
        for before in range(stage):  # whoever came before has not computed anything twice
            assert sum(peer.works.forwards for peer in pipeline.of(before)) <= N + 1
        assert pipeline.network.bugs == []

    run(main())


@pytest.mark.parametrize("seed", range(8))
def test_crashes_and_joins_in_any_order_leave_every_sample_counted_once(seed):
    async def main():
        chance = random.Random(seed)
        counts = tuple(chance.choice([2, 2, 3]) for _ in range(chance.choice([2, 3, 4])))
        pipeline = HubPipeline(counts, trainers=chance.choice([1, 2]), seed=seed)
        await pipeline.start()
        pipeline.limit = N
        for _ in range(6):
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            peers = pipeline.of(chance.randrange(len(counts)))
            if len(peers) > 1 and chance.random() < 0.7:
                pipeline.crash(chance.choice(peers))
            else:
                await pipeline.add(peers[0].stage).start()
        await whole(pipeline)
        assert pipeline.network.bugs == []
        assert pipeline.sums() == pytest.approx(pipeline.expected(range(N)), rel=1e-12)
        held_once(pipeline)

    run(main())


@pytest.mark.parametrize("seed", range(12))
def test_storms_over_real_steps_lose_nothing_and_count_nothing_twice(seed):
    async def main():
        chance = random.Random(seed)
        counts = tuple(chance.choice([1, 2, 3]) for _ in range(chance.choice([2, 3])))
        trainers = chance.choice([1, 2])
        pipeline = HubPipeline(counts, trainers, seed, target=TARGET, notice_s=4.0)
        await pipeline.start()
        pipeline.limit = N
        await storm(pipeline, chance)
        pipeline.heal()
        await pipeline.until(lambda: pipeline.given == N, 3000.0)
        await asyncio.sleep(30.0)
        await pipeline.flush(3000.0)
        pipeline.judge()

    run(main())


def test_what_is_kept_is_freed_with_the_next_trip():
    async def main():
        pipeline = HubPipeline((1, 1))
        await pipeline.start()
        await whole(pipeline)
        [traveller] = pipeline.travellers
        pipeline.limit += 1
        await pipeline.until(lambda: traveller.book.ledger.whole == N + 1)
        assert traveller.hub.nbytes <= 8 * ROWS * LENGTH

    run(main())


# ---- letters ------------------------------------------------------------------------------------

IDS = memoryview(bytes(4 * ROWS * (LENGTH + 1)))
OUTPUT = memoryview(b"x" * 8)
ME = "trainer1"
A, B, C, D, E, Z = (f"peer111{name}" for name in "abcdez")


def letter(**changes):
    fields = {
        "sample": 7,
        "attempt": 0,
        "stage": 0,
        "trainer": ME,
        "route": (A, B, C),
        "mask": b"\7",
        "rows": ROWS,
        "length": LENGTH,
        "nbytes": len(IDS),
    }
    return Forward(**(fields | changes))


def hub():
    made = Hub(ME, LIMITS, lambda sample: True)
    out = made.dispatch(Say(A, letter(), (IDS,)))
    assert out.letter.route == (A, ME, ME)
    return made


def given(made, peer=A, stage=1, **changes):
    """``peer`` answers with an output; its ids are not those of the trip."""
    said = letter(stage=stage, **changes)
    return made.forward(peer, said, memoryview(b"?" * len(IDS) + bytes(OUTPUT)))


def test_an_output_goes_on_with_the_trips_own_ids_and_a_route_of_its_own():
    [say] = given(hub(), version=5, steps=(1, 2, 3))
    assert say.peer == B
    assert (say.letter.stage, say.letter.route) == (1, (ME, B, ME))
    assert (say.letter.version, say.letter.steps) == (5, (1, 2, 3))
    assert say.payload == (IDS, OUTPUT)
    assert say.letter.nbytes == len(IDS) + len(OUTPUT)


def test_a_gradient_goes_to_whoever_made_the_output():
    made = hub()
    given(made)
    back = Backward(sample=7, attempt=0, stage=0, version=5, nbytes=8)
    assert made.backward(C, back, OUTPUT) == []
    [say] = made.backward(B, back, OUTPUT)
    assert (say.peer, say.payload) == (A, (OUTPUT,))


def test_another_peer_gets_the_same_input_and_what_came_after_is_forgotten():
    made = hub()
    given(made)
    given(made, peer=B, stage=2)
    again = Resume(sample=7, attempt=1, stage=0, route=(A, D, C), mask=b"\6")
    say = made.dispatch(Say(A, again))
    assert (say.peer, say.payload) == (D, (IDS, OUTPUT))
    assert (say.letter.attempt, say.letter.mask) == (1, b"\6")
    assert given(made, peer=B, stage=2) == [], "of the attempt before"
    assert made.nbytes == len(OUTPUT)
    later = Resume(sample=7, attempt=2, stage=1, route=(A, D, E), mask=b"\6")
    assert made.dispatch(Say(D, later)).what == "unknown"


@pytest.mark.parametrize("changes", [{"stage": 0}, {"stage": 3}, {"rows": 1}])
def test_an_output_that_cannot_be_is_refused(changes):
    with pytest.raises(MessageError):
        given(hub(), **changes)


def test_strangers_and_unknown_samples_are_passed_over():
    made = hub()
    assert given(made, peer=Z) == []
    assert given(made, sample=8) == []
    receipt = made.dispatch(
        Say(A, Resume(sample=8, attempt=1, stage=0, route=(A, B, C), mask=b"\1"))
    )
    assert isinstance(receipt, Receipt)
    assert made.nbytes == 0


def test_no_trainer_takes_tensors_that_go_stage_to_stage():
    async def main():
        [traveller] = Pipeline((1,)).travellers
        with pytest.raises(MessageError):
            traveller.room(letter())

    run(main())
