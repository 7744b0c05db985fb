"""The compute core of a stage peer: sums that are exact, whoever computes what in what company.

The gradient of one process and the split over peers are laws B4.1 and B4.2 of SWARM pipelines.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from swarmnet.errors import PayloadError, SampleRefused
from swarmnet.inner.adamw import AdamW
from swarmnet.train.passes import Arrival
from swarmnet.train.stage import StageCore
from tests.unit.tiny_stage import (
    LENGTH,
    WIDTH,
    Master,
    by_one_process,
    come_back,
    cores,
    go_through,
    model,
    texts,
    trip,
)

TOKENS = 2 * LENGTH


def close(actual: Tensor, expected: Tensor, bound: float = 1e-10) -> None:
    assert float((actual - expected).abs().max()) <= bound


def activations(count: int, seed: int = 3) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    shape = (count, 2, LENGTH, WIDTH)
    return list(torch.randn(shape, dtype=torch.float64, generator=source))


def at_the_tail(count: int) -> list[Arrival]:
    pairs = zip(texts(count), activations(count), strict=True)
    return [Arrival(n, text, given) for n, (text, given) in enumerate(pairs)]


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_any_routing_gives_the_gradient_of_one_process(stages: int, seed: int) -> None:
    source = random.Random(seed)
    peers = [[cores(stages)[k] for _ in range(source.randint(1, 3))] for k in range(stages)]
    tokens = texts(7, seed=seed)
    waiting, loss = dict(enumerate(tokens)), 0.0
    while waiting:
        chosen = source.sample(sorted(waiting), min(len(waiting), source.randint(1, 3)))
        batch = {sample: waiting.pop(sample) for sample in chosen}
        loss += trip([source.choice(stage) for stage in peers], batch)
        for core in itertools.chain(*peers):
            if source.random() < 0.3:
                core.weigh()
    expected_loss, expected = by_one_process(model(stages), tokens)
    assert loss == pytest.approx(expected_loss, abs=1e-10)
    for stage, gradient in zip(peers, expected, strict=True):
        sums = [core.freeze() for core in stage]
        assert sorted(s for part in sums for s in part.samples) == list(range(7))
        assert sum(part.tokens for part in sums) == 7 * TOKENS
        close(torch.stack([part.vector for part in sums]).sum(0), gradient)


@pytest.mark.parametrize("share", [1, 4, 8])
def test_the_mean_does_not_depend_on_who_computed_how_much(share: int) -> None:
    tokens = dict(enumerate(texts(8)))
    one, two = cores(1) + cores(1)
    for sample, text in tokens.items():
        trip([one if sample < share else two], {sample: text})
    first, second = one.freeze(), two.freeze()
    assert len(first.samples) == share
    mean = (first.vector + second.vector) / (first.tokens + second.tokens)
    _, [gradient] = by_one_process(model(1), list(tokens.values()))
    close(mean, gradient / (8 * TOKENS))
    one.step(mean.clone(), 0.1)
    close(one.master.theta, Master(model(1)[0]).theta - 0.1 * mean)


def test_peers_that_step_with_one_mean_stay_identical_bit_for_bit() -> None:
    adamw = partial(AdamW, AdamW.Config())
    one, two = (StageCore(Master(model(1, torch.float32)[0], adamw)) for _ in range(2))
    for step in range(3):
        trip([one], {0: texts(1, seed=step)[0]})
        trip([two], {1: texts(1, seed=10 + step)[0]})
        first, second = one.freeze(), two.freeze()
        mean = (first.vector + second.vector) / (first.tokens + second.tokens)
        for core, sums in ((one, first), (two, second)):
            core.step(mean.clone(), 0.01)
            core.discard(sums)
        assert torch.equal(one.master.theta, two.master.theta)
        probe = {9: texts(1, seed=99)[0]}
        assert go_through([one], probe)[0][0].loss == go_through([two], probe)[0][0].loss
    assert one.version == two.version == 3


def test_the_mean_is_clipped_once_and_only_at_the_step() -> None:
    config = AdamW.Config(clip=1e-3, eps=1.0, weight_decay=0)
    core = StageCore(Master(model(1)[0], partial(AdamW, config)))
    before = core.master.theta.clone()
    tokens = texts(4)
    trip([core], dict(enumerate(tokens)))
    sums = core.freeze()
    close(sums.vector, by_one_process(model(1), tokens)[1][0])
    mean = sums.vector / sums.tokens
    clipped = mean * (1e-3 / (float(mean.norm()) + 1e-6))
    core.step(mean, 1.0)
    close(before - core.master.theta, clipped / (clipped.abs() + 1.0))


def test_a_batch_computes_what_its_members_compute_alone() -> None:
    together, alone = cores(2), cores(2)
    tokens = dict(enumerate([*texts(2), *texts(1, sequences=3)]))
    joint = go_through(together, tokens)
    single = [go_through(alone, {sample: text}) for sample, text in tokens.items()]
    for k, passes in enumerate(joint):
        for one, [other] in zip(passes, (each[k] for each in single), strict=True):
            assert one.loss == pytest.approx(other.loss, abs=1e-12)
            assert (one.sample, one.tokens) == (other.sample, other.tokens)
            if one.output is not None and other.output is not None:
                close(one.output, other.output, 1e-12)
    come_back(together, joint)
    for passes in single:
        come_back(alone, passes)
    for one, other in zip(together, alone, strict=True):
        first, second = one.freeze(), other.freeze()
        close(first.vector, second.vector, 1e-12)
        assert (first.tokens, first.samples) == (second.tokens, second.samples)


def test_members_that_come_back_alone_are_computed_again_and_count_once() -> None:
    whole, tail = cores(2)[1], cores(2)[1]
    arrivals = at_the_tail(3)
    expected = whole.backward(whole.forward(arrivals), [None] * 3)
    one, two, three = tail.forward(arrivals)
    found = tail.backward([one], [None]) + tail.backward([three, two], [None, None])
    for n, gradient in zip((0, 2, 1), found, strict=True):
        close(gradient, expected[n], 1e-12)
    first, second = whole.freeze(), tail.freeze()
    close(first.vector, second.vector, 1e-12)
    assert first.tokens == second.tokens == 3 * TOKENS
    assert second.samples == (0, 2, 1)


def test_the_members_of_a_batch_may_come_back_in_any_order() -> None:
    core = cores(2)[0]
    passes = core.forward([Arrival(n, text) for n, text in enumerate(texts(3))])
    gradients = activations(3)
    core.backward(passes[::-1], gradients[::-1])
    other = cores(2)[0]
    for n, text in enumerate(texts(3)):
        other.backward(other.forward([Arrival(n, text)]), [gradients[n]])
    close(core.freeze().vector, other.freeze().vector, 1e-12)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_sample_that_counts_elsewhere_gives_its_gradient_and_nothing_else(stage: int) -> None:
    core = cores(2)[stage]
    arrival = at_the_tail(1)[0] if stage else Arrival(0, texts(1)[0])
    gradient = None if stage else activations(1)[0]
    [counted] = core.forward([arrival])
    expected = core.backward([counted], [gradient])
    core.drop()
    [masked] = core.forward([arrival])
    found = core.backward([masked], [gradient], count=False)
    if stage:
        assert torch.equal(found[0], expected[0])
    else:
        assert found == expected == [None]
    # What counted here already may come again for the sake of those before it.
    core.backward([counted], [gradient], count=False)
    assert core.waiting == 0
    sums = core.freeze()
    assert (sums.samples, sums.tokens, int(sums.vector.count_nonzero())) == ((), 0, 0)


def test_a_gradient_that_counts_is_not_taken_twice() -> None:
    core = cores(1)[0]
    passes = core.forward([Arrival(0, texts(1)[0])])
    for wrong in (passes * 2, passes):
        if wrong is passes:
            core.backward(passes, [None])
        with pytest.raises(ValueError, match="counts already"):
            core.backward(wrong, [None] * len(wrong))
    assert core.freeze().samples == (0,)


def spoiled(core: StageCore, value: float) -> None:
    """One weight that makes the numbers of every sample break."""
    core.master.theta[-1] = value
    core.publish()


BAD_ARRIVALS: dict[str, Callable[[Arrival], Arrival]] = {
    "nan": lambda a: Arrival(7, a.tokens, a.received * float("nan")),
    "infinite": lambda a: Arrival(7, a.tokens, a.received / 0),
    "nothing received": lambda a: Arrival(7, a.tokens),
    "another length": lambda a: Arrival(7, a.tokens[:, 1:], a.received),
    "no tokens": lambda a: Arrival(7, a.tokens[:, :1], a.received[:, :0]),
    "no sequence": lambda a: Arrival(7, a.tokens[:0], a.received[:0]),
    "no features": lambda a: Arrival(7, a.tokens, a.received[:, :, :0]),
    "flat": lambda a: Arrival(7, a.tokens, a.received.flatten(1)),
}


@pytest.mark.parametrize("bad", BAD_ARRIVALS)
def test_what_does_not_fit_is_refused_by_name_and_the_others_go_again(bad: str) -> None:
    core = cores(2)[1]
    good = at_the_tail(2)
    with pytest.raises(SampleRefused) as refusal:
        core.forward([good[0], BAD_ARRIVALS[bad](good[1]), good[1]])
    assert refusal.value.samples == (7,)
    assert isinstance(refusal.value, PayloadError)
    core.backward(core.forward(good), [None, None])
    assert core.freeze().samples == (0, 1)


@pytest.mark.parametrize("stage", [0, 1])
def test_results_that_are_not_finite_are_refused(stage: int) -> None:
    core = cores(2)[stage]
    arrival = at_the_tail(1)[0] if stage else Arrival(0, texts(1)[0])
    spoiled(core, float("inf"))
    with pytest.raises(SampleRefused, match="computed is not finite"):
        core.forward([arrival])


@pytest.mark.parametrize("spoil", [lambda g: g * float("nan"), lambda g: g / 0, lambda g: g[:1]])
def test_a_bad_gradient_changes_nothing_and_a_good_one_may_follow(
    spoil: Callable[[Tensor], Tensor],
) -> None:
    core, other = cores(2)[0], cores(2)[0]
    arrivals = [Arrival(n, text) for n, text in enumerate(texts(2))]
    good = activations(2)
    passes = core.forward(arrivals)
    with pytest.raises(SampleRefused) as refusal:
        core.backward(passes, [good[0], spoil(good[1])])
    assert refusal.value.samples == (1,)
    assert core.waiting == 0
    core.backward(passes, good)
    other.backward(other.forward(arrivals), good)
    one, two = core.freeze(), other.freeze()
    assert torch.equal(one.vector, two.vector)
    assert one.samples == two.samples == (0, 1)


def test_a_gradient_that_becomes_infinite_on_its_way_is_refused_by_name() -> None:
    core = cores(3)[1]
    arrivals = at_the_tail(2)
    passes = core.forward(arrivals)
    good = activations(2)
    with pytest.raises(SampleRefused) as refusal:
        core.backward(passes, [good[0], torch.full_like(good[1], 1e308)])
    assert refusal.value.samples == (1,)
    core.backward(passes[:1], good[:1])
    sums = core.freeze()
    assert sums.samples == (0,)
    assert bool(sums.vector.isfinite().all())
