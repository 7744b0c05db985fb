"""Versions and books of a stage's core: what lives how long, what counts, what comes back."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from swarmnet.config import RunFile
from swarmnet.errors import PayloadError, StaleVersion
from swarmnet.train.passes import Arrival
from swarmnet.train.replica import Replica
from swarmnet.train.stage import StageCore
from tests.swarm.herd import RUN
from tests.unit.tiny_stage import LENGTH, Master, TinyStage, cores, model, texts, trip

TOKENS = 2 * LENGTH


def arrival(sample: int = 0) -> Arrival:
    return Arrival(sample, texts(1, seed=sample)[0])


def step(core: StageCore) -> None:
    core.step(torch.full_like(core.master.theta, 0.5), 0.1)


def test_what_is_under_way_ends_with_the_weights_that_began_it() -> None:
    core, still = cores(1) + cores(1)
    [old], [same] = core.forward([arrival()]), still.forward([arrival()])
    step(core)
    [new] = core.forward([arrival(1)])
    assert (old.version, new.version, old.stale) == (0, 1, False)
    core.backward([old], [None])
    still.backward([same], [None])
    assert torch.equal(core.freeze().vector, still.freeze().vector)


def test_the_version_before_can_be_computed_with_and_no_other() -> None:
    core = cores(1)[0]
    [first] = core.forward([arrival()])
    step(core)
    [again] = core.forward([arrival()], version=0)
    assert (again.version, again.loss) == (0, first.loss)
    step(core)
    for version in (0, 3, -1):
        with pytest.raises(StaleVersion, match=f"version {version} "):
            core.forward([arrival()], version=version)


def test_graphs_whose_weights_are_gone_are_dropped_and_refused() -> None:
    core = cores(1)[0]
    [old] = core.forward([arrival()])
    step(core)
    [kept] = core.forward([arrival(1)])
    activations = weakref.ref(old.graph.root)
    step(core)
    gc.collect()
    assert activations() is None
    assert (old.stale, kept.stale) == (True, False)
    with pytest.raises(StaleVersion, match=r"versions \[0\] are gone; current is 2"):
        core.backward([kept, old], [None, None])
    core.backward([kept], [None])
    assert core.freeze().samples == (1,)


def test_what_waits_for_w_holds_no_graph() -> None:
    module, nodes = model(1)[0], []
    core = StageCore(Master(module))
    [one] = core.forward([arrival()])
    old = one.side.module.up.forward
    one.side.module.up.forward = lambda x: nodes.append(weakref.ref(x)) or old(x)
    core.backward(core.forward([arrival(1)]), [None])
    assert core.waiting == 1
    gc.collect()
    assert [node() for node in nodes] == [None]


def test_a_pass_that_nobody_wants_frees_its_graph() -> None:
    core = cores(1)[0]
    passes = core.forward([arrival()])
    graph = weakref.ref(passes[0].graph)
    del passes
    gc.collect()
    assert graph() is None


def test_a_weight_gradient_of_the_version_before_still_counts() -> None:
    core, still = cores(1) + cores(1)
    for each in (core, still):
        each.backward(each.forward([arrival()]), [None])
    step(core)
    step(core)
    assert core.weigh() == still.weigh() == (0,)
    assert torch.equal(core.freeze().vector, still.freeze().vector)


def test_a_sample_counts_when_its_weight_gradient_is_in() -> None:
    core = cores(1)[0]
    core.backward(core.forward([arrival(1), arrival(2)]), [None, None])
    core.backward(core.forward([arrival(3)]), [None])
    assert (core.waiting, core.tokens) == (2, 0)
    assert core.weigh() == (1, 2)
    assert (core.waiting, core.tokens) == (1, 2 * TOKENS)
    sums = core.freeze()
    assert (core.waiting, core.tokens, core.weigh()) == (0, 0, ())
    assert (sums.samples, sums.tokens) == ((1, 2, 3), 3 * TOKENS)


def test_samples_that_come_while_sums_are_out_count_for_the_next_ones() -> None:
    core, alone = cores(1) + cores(1)
    trip([core], {0: arrival(0).tokens})
    sums = core.freeze()
    before = sums.vector.clone()
    for each in (core, alone):
        trip([each], {1: arrival(1).tokens})
    with pytest.raises(RuntimeError, match="still out"):
        core.freeze()
    assert torch.equal(sums.vector, before)
    core.discard(sums)
    later = core.freeze()
    assert torch.equal(later.vector, alone.freeze().vector)
    assert (later.samples, later.tokens) == ((1,), TOKENS)


def test_sums_of_a_round_that_came_to_nothing_count_again_once() -> None:
    core, alone = cores(1) + cores(1)
    trip([core], {0: arrival(0).tokens})
    sums = core.freeze()
    trip([core], {1: arrival(1).tokens})
    core.put_back(sums)
    for again in (core.put_back, core.discard):
        with pytest.raises(ValueError, match="not out"):
            again(sums)
    for sample in (1, 0):
        trip([alone], {sample: arrival(sample).tokens})
    later, expected = core.freeze(), alone.freeze()
    assert torch.allclose(later.vector, expected.vector, rtol=0, atol=1e-12)
    assert (later.samples, later.tokens) == ((0, 1), 2 * TOKENS)


def test_dropping_names_what_will_not_count() -> None:
    core, alone = cores(1) + cores(1)
    trip([core], {0: arrival(0).tokens})
    core.weigh()
    trip([core], {1: arrival(1).tokens})
    assert core.drop() == (0, 1)
    assert (core.waiting, core.tokens) == (0, 0)
    for each in (core, alone):
        trip([each], {2: arrival(2).tokens})
    assert torch.equal(core.freeze().vector, alone.freeze().vector)


def test_rounds_reserve_nothing_after_the_beginning() -> None:
    core = cores(1)[0]
    places: list[set[int]] = [set(), set()]
    for _ in range(3):
        trip([core], {0: arrival().tokens})
        sums = core.freeze()
        places[0].add(sums.vector.data_ptr())
        core.step(sums.vector / sums.tokens, 0.1)
        core.discard(sums)
        places[1].add(core.forward([arrival()])[0].side.vector.data_ptr())
    assert [len(found) for found in places] == [2, 2]


def test_a_foreign_mean_is_refused() -> None:
    core = cores(1)[0]
    before = core.master.theta.clone()
    with pytest.raises(ValueError, match="mean gradient"):
        core.step(torch.ones(3), 0.1)
    assert torch.equal(core.master.theta, before)
    assert core.version == 0


def test_weights_that_others_moved_are_served_when_published() -> None:
    core, moved = cores(1)[0], cores(1, seed=5)[0]
    with torch.no_grad():
        core.master.theta.copy_(moved.master.theta)
    [before] = core.forward([arrival()])
    core.publish()
    [after] = core.forward([arrival()])
    assert before.loss != after.loss == moved.forward([arrival()])[0].loss
    assert (before.version, after.version, before.stale) == (0, 1, False)


def test_moved_weights_are_constrained_before_they_are_served() -> None:
    def without_first(module: nn.Module) -> None:
        module.embed.weight.data[0] = 0

    core = StageCore(Master(model(1)[0]), constrain=without_first)
    assert int(core.master.module.embed.weight[0].count_nonzero()) > 0
    step(core)
    assert int(core.master.module.embed.weight[0].count_nonzero()) == 0
    [served] = core.forward([arrival()])
    assert int(served.side.module.embed.weight[0].count_nonzero()) == 0


def test_what_is_not_trained_stands_in_memory_once() -> None:
    module = model(1)[0]
    module.norm.requires_grad_(False)
    core = StageCore(Master(module))
    side = core.forward([arrival()])[0].side
    assert side.module.norm.weight is module.norm.weight
    assert side.module.up.weight is not module.up.weight


# ---- on a replica --------------------------------------------------------------------------------


def replica(seed: int) -> Replica:
    run = RunFile.load(RUN, ["outer=noloco"]).config
    return Replica(model(1, torch.float32, seed)[0], run, seed)


def served(core: StageCore) -> Tensor:
    return core.forward([arrival(9)])[0].side.vector.clone()


def test_a_replica_of_a_stage_is_a_core_s_master_and_hands_its_state_on() -> None:
    one, two = (StageCore(replica(seed), version=seed) for seed in (3, 4))
    for sample in range(3):
        trip([one], {sample: arrival(sample).tokens})
        sums = one.freeze()
        one.step(sums.vector / sums.tokens, 1e-2)
        one.discard(sums)
    trip([two], {7: arrival(7).tokens})
    two.freeze()
    trip([two], {8: arrival(8).tokens})
    [lost] = two.forward([arrival()])
    two.load(one.master.tensors(), one.version)
    assert lost.stale
    assert (two.version, two.tokens, two.waiting) == (one.version, 0, 0) == (6, 0, 0)
    assert torch.equal(served(one), served(two))
    for each in (one, two):
        trip([each], {10: arrival(10).tokens})
        sums = each.freeze()
        each.step(sums.vector / sums.tokens, 1e-2)
    assert torch.equal(one.master.theta, two.master.theta)
    assert torch.equal(served(one), served(two))


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    core = StageCore(replica(3))
    trip([core], {0: arrival().tokens})
    before, state = served(core), core.master.tensors()
    state["theta"] = state["theta"][1:]
    with pytest.raises(PayloadError):
        core.load(state, 5)
    assert torch.equal(served(core), before)
    assert core.freeze().samples == (0,)
    assert core.version == 0
    assert isinstance(core.master.module, TinyStage)
