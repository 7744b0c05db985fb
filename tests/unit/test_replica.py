"""The replica as the subject of meetings: what goes out, what comes back, what is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from swarmnet.config import RunFile
from swarmnet.errors import PayloadError
from swarmnet.train import grid
from swarmnet.train.budget import reserved
from swarmnet.train.replica import Replica
from tests.swarm.herd import RUN


def replicas(*overrides: str) -> tuple[Replica, Replica]:
    run = RunFile.load(RUN, overrides).config
    build = run.model.build("model", {}).build
    one, two = (Replica(build(seed), run, seed) for seed in (1, 2))
    return one, two


def formed(one: Replica, two: Replica) -> tuple[Any, Any]:
    """(snapshot, correction) of each side of a meeting without a network."""
    sides = {"a": (one, one.capture()), "b": (two, two.capture())}
    works = {"a": 1, "b": 1}
    results = []
    for me, other in (("a", "b"), ("b", "a")):
        replica, snapshot = sides[me]
        partner, theirs = sides[other]
        blend = replica.blend(snapshot, me, works)
        for part in reversed(range(replica.parts)):
            payload = memoryview(bytearray(partner.encode(theirs, part)))
            assert payload.nbytes == replica.part_nbytes(part)
            blend.take(part, {other: payload})
        results.append((snapshot, blend.finish()))
    return results[0], results[1]


def meet(one: Replica, two: Replica) -> None:
    """A whole meeting without a network; both apply."""
    (mine, first), (theirs, second) = formed(one, two)
    assert torch.allclose(first.vector, -second.vector, atol=1e-6)
    assert first.distance == pytest.approx(second.distance)
    one.apply_met(mine, first.vector)
    two.apply_met(theirs, second.vector)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts even of a tiny model, the last one shorter."""
    monkeypatch.setattr(grid, "PART_VALUES", 3000)


@pytest.mark.parametrize("codec", ["raw", "bf16", "int8"])
@pytest.mark.parametrize("rule", ["average", "noloco"])
def test_a_meeting_keeps_the_mean_whatever_the_codec_loses(rule: str, codec: str) -> None:
    one, two = replicas(f"outer={rule}", f"codec={codec}")
    before = (one.theta + two.theta) / 2
    meet(one, two)
    assert torch.allclose((one.theta + two.theta) / 2, before, atol=1e-6)


def test_a_raw_average_makes_the_pair_equal_and_keeps_steps_taken_meanwhile() -> None:
    one, two = replicas("outer=average", "codec=raw")
    (snapshot, correction), _ = formed(one, two)
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
    with pytest.raises(PayloadError):
        formed(one, two)
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


@pytest.mark.parametrize(
    ("options", "snapshots", "payloads"),
    [
        (("outer=average", "codec=raw"), 2, 1.0),
        (("outer=noloco", "codec=bf16"), 2, 1.0),
        (("outer.name=noloco", "outer.gamma=0.4", "codec=raw"), 6, 4.0),
    ],
)
def test_the_memory_budget_is_what_is_held(
    options: tuple[str, ...], snapshots: int, payloads: float
) -> None:
    one, two = replicas(*options)
    vector = 4 * one.theta.numel()
    budget = reserved(one)
    assert budget["weights"] == budget["corrections"] == vector
    assert budget["snapshots"] == snapshots * vector
    assert budget["payloads"] == payloads * vector
    assert budget["inner"] >= 2 * vector
    meet(one, two)
    assert reserved(one) == budget


@pytest.mark.parametrize("codec", ["raw", "int8"])
@pytest.mark.parametrize("gamma", ["0.7", "0.4"], ids=["one row", "two rows"])
def test_each_meeting_sends_the_snapshot_of_its_own_time(
    gamma: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``meet`` finds that both computed with the same numbers; buffers are used again and again."""
    monkeypatch.setattr(grid, "PART_VALUES", 8192)
    one, two = replicas("outer.name=noloco", f"outer.gamma={gamma}", f"codec={codec}")
    assert one.parts > 3
    for _ in range(5):
        for replica in (one, two):
            with torch.no_grad():
                replica.theta += torch.randn_like(replica.theta)
        meet(one, two)
