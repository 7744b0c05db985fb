"""The replica as the subject of meetings: what goes out, what comes back, what is kept."""

from __future__ import annotations

import pytest
import torch

from swarmnet.config import RunFile
from swarmnet.errors import PayloadError
from swarmnet.train.replica import Replica
from tests.swarm.herd import RUN


def replicas(*overrides: str) -> tuple[Replica, Replica]:
    run = RunFile.load(RUN, overrides).config
    build = run.model.build("model", {}).build
    one, two = (Replica(build(seed), run, seed) for seed in (1, 2))
    return one, two


def meet(one: Replica, two: Replica) -> None:
    """A whole meeting without a network; both apply."""
    snapshots = [replica.capture() for replica in (one, two)]
    mine, theirs = (
        memoryview(bytearray(replica.encode(snapshot)))
        for replica, snapshot in zip((one, two), snapshots, strict=True)
    )
    first = one.correct("a", mine, "b", theirs)
    second = two.correct("b", theirs, "a", mine)
    assert torch.allclose(first.vector, -second.vector, atol=1e-6)
    assert first.distance == pytest.approx(second.distance)
    one.apply_met(snapshots[0], first.vector)
    two.apply_met(snapshots[1], second.vector)


@pytest.mark.parametrize("codec", ["raw", "bf16", "int8"])
@pytest.mark.parametrize("rule", ["average", "noloco"])
def test_a_meeting_keeps_the_mean_whatever_the_codec_loses(rule: str, codec: str) -> None:
    one, two = replicas(f"outer={rule}", f"codec={codec}")
    before = (one.theta + two.theta) / 2
    meet(one, two)
    assert torch.allclose((one.theta + two.theta) / 2, before, atol=1e-6)


def test_a_raw_average_makes_the_pair_equal_and_keeps_steps_taken_meanwhile() -> None:
    one, two = replicas("outer=average", "codec=raw")
    snapshot, other = one.capture(), two.capture()
    mine, theirs = (memoryview(bytearray(r.encode(s))) for r, s in ((one, snapshot), (two, other)))
    correction = one.correct("a", mine, "b", theirs)
    mean = (one.theta + two.theta) / 2
    one.theta += 0.25
    one.apply_met(snapshot, correction.vector)
    assert torch.allclose(one.theta, mean + 0.25, atol=1e-6)


def test_there_is_no_outer_step_before_the_first_partner() -> None:
    one, two = replicas("outer=noloco")
    one.theta += 0.1
    before = one.theta.clone()
    one.apply_solo(one.capture())
    assert torch.equal(one.theta, before)
    meet(one, two)
    one.theta += 0.1
    before = one.theta.clone()
    one.apply_solo(one.capture())
    assert not torch.equal(one.theta, before)


def test_consensus_is_a_pure_average_under_another_layout() -> None:
    one, two = replicas("outer=noloco", "codec=raw")
    layout = one.layout
    for replica in (one, two):
        replica.enter_consensus()
    assert one.layout == two.layout != layout
    meet(one, two)
    assert torch.allclose(one.theta, two.theta, atol=1e-6)


def test_a_payload_with_nan_changes_nothing() -> None:
    one, two = replicas("codec=raw")
    before = one.theta.clone()
    two.theta[3] = float("nan")
    mine, theirs = (memoryview(bytearray(r.encode(r.capture()))) for r in (one, two))
    with pytest.raises(PayloadError):
        one.correct("a", mine, "b", theirs)
    assert torch.equal(one.theta, before)


def test_state_moves_to_a_joiner_and_nothing_else_fits() -> None:
    one, two = replicas("outer=noloco")
    meet(one, two)
    two.load(one.tensors(), met=True)
    assert torch.equal(one.theta, two.theta)
    assert two.met
    foreign = one.tensors()
    foreign["theta"] = foreign["theta"][:-1]
    with pytest.raises(PayloadError):
        two.load(foreign, met=True)
    poisoned = one.tensors()
    poisoned["inner.exp_avg"][0] = float("inf")
    with pytest.raises(PayloadError):
        two.load(poisoned, met=True)
