"""What a replica hands over when it leaves: the mean law in float64, and real replicas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swarmnet import registry
from swarmnet.errors import PayloadError
from swarmnet.exchange.subject import Legacy
from swarmnet.train import grid
from swarmnet.train.replica import Replica
from tests.unit.test_replica import meet, replicas

P = 40
LAW = 1e-12
NOLOCO = [{}, {"gamma": 0.4}, {"by_work": True}, {"alpha": 0.9, "gamma": 0.3}]


def normal(seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(P, generator=source, dtype=torch.float64)


class Peer:
    """Slow weights and live weights of one peer, (P,) each."""

    def __init__(self, rule: str, options: dict[str, object], seed: int) -> None:
        cls = registry.find("outer", rule)
        self.outer = cls(cls.Config(**options))
        self.theta = normal(seed)
        self.outer.start(self.theta)

    def train(self, seed: int) -> None:
        self.theta += 0.1 * normal(seed)

    def step(self) -> None:
        """The outer step of a group of one."""
        self.outer.solo(self.theta.clone(), self.theta)

    def unshared(self) -> Tensor:
        out = torch.empty_like(self.theta)
        self.outer.unshared(self.theta, out)
        return out


def trained(rule: str, options: dict[str, object]) -> tuple[Peer, Peer]:
    """Two peers with momentum and an unfinished window."""
    one, two = (Peer(rule, options, seed) for seed in (1, 2))
    for peer, seed in ((one, 3), (two, 4)):
        peer.train(seed)
        peer.step()
        peer.train(seed + 10)
    return one, two


def hand_over(leaver: Peer, heir: Peer) -> Tensor:
    moved = leaver.unshared()
    heir.theta += moved
    leaver.theta -= moved
    return moved


@pytest.mark.parametrize("options", NOLOCO, ids=str)
def test_the_sum_of_slow_weights_moves_by_what_the_leavers_step_would_have_added(
    options: dict[str, object],
) -> None:
    beta = registry.find("outer", "noloco").Config(**options).beta
    leaver, heir = trained("noloco", options)
    _, alone = trained("noloco", options)
    moved = hand_over(leaver, heir)
    heir.step()
    alone.step()
    before, after = alone.outer.tensors(), heir.outer.tensors()
    for name in ("phi", "delta"):
        assert (after[name] - before[name] - beta * moved).abs().max() < LAW
    assert leaver.unshared().abs().max() < LAW


@pytest.mark.parametrize("rule", ["noloco", "average"])
def test_a_leaver_that_comes_back_brings_nothing_twice(rule: str) -> None:
    leaver, heir = trained(rule, {})
    before = leaver.theta + heir.theta
    moved = hand_over(leaver, heir)
    assert (leaver.theta + heir.theta - before).abs().max() < LAW
    assert leaver.unshared().abs().max() < LAW
    assert moved.abs().min() > 0


def test_an_average_remembers_where_its_last_meeting_left_it() -> None:
    peer = Peer("average", {}, 1)
    peer.train(2)
    snapshot, correction = peer.theta.clone(), normal(3)
    peer.train(4)
    peer.outer.solo(snapshot, peer.theta)
    peer.outer.settle(correction)
    peer.theta += correction
    assert (peer.unshared() - 0.1 * normal(4)).abs().max() < LAW


def test_by_rate_an_heir_takes_what_keeps_the_weighed_mean_and_never_more_than_there_is() -> None:
    cls = registry.find("outer", "average")
    by_rate = cls(cls.Config(by_rate=True))
    assert by_rate.inheritance(500, 1000) == 0.5
    assert by_rate.inheritance(1000, 500) == 1.0
    assert by_rate.inheritance(1, 1000) == pytest.approx(1 / 16)
    assert by_rate.inheritance(0, 0) == 1.0
    assert cls(cls.Config()).inheritance(1, 1000) == 1.0


# ---- real replicas ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "PART_VALUES", 3000)


def decoded(giver: Legacy, taker: Legacy, vector: Tensor) -> Tensor:
    intake = taker.intake(1, 1)
    for part in range(giver.parts):
        payload = memoryview(bytearray(giver.encode(vector, part)))
        assert payload.nbytes == giver.part_nbytes(part)
        intake.take(part, {"a": payload})
    found: Tensor = intake.finish().vector
    return found


def worked(*overrides: str) -> tuple[Replica, Replica]:
    one, two = replicas(*overrides)
    meet(one, two)
    for seed, replica in enumerate((one, two)):
        torch.manual_seed(seed)
        with torch.no_grad():
            replica.theta += 0.01 * torch.randn_like(replica.theta)
    return one, two


@pytest.mark.parametrize("codec", ["raw", "bf16", "int8"])
@pytest.mark.parametrize("rule", ["average", "noloco"])
def test_replicas_keep_their_sum_whatever_the_codec_loses(rule: str, codec: str) -> None:
    leaver, heir = worked(f"outer={rule}", f"codec={codec}")
    before = leaver.theta + heir.theta
    vector = leaver.legacy.capture()
    assert vector is not None
    assert leaver.legacy.parts > 1
    moved = decoded(leaver.legacy, heir.legacy, vector)
    assert torch.equal(moved, decoded(leaver.legacy, leaver.legacy, vector))
    assert (moved - vector).abs().max() < 0.01 * vector.abs().max()
    heir.legacy.inherit(moved)
    leaver.legacy.part_with(moved)
    assert torch.allclose(leaver.theta + heir.theta, before, atol=1e-6)


def test_a_replica_that_did_nothing_has_nothing_to_hand_over() -> None:
    one, _ = replicas("outer=noloco")
    assert one.legacy.capture() is None


@pytest.mark.parametrize("codec", ["raw", "bf16", "int8"])
def test_a_legacy_that_is_not_finite_is_refused(codec: str) -> None:
    leaver, heir = worked("outer=noloco", f"codec={codec}")
    vector = leaver.legacy.capture()
    assert vector is not None
    vector[0] = float("inf")
    with pytest.raises(PayloadError):
        decoded(leaver.legacy, heir.legacy, vector)


def test_a_legacy_is_no_contribution_to_a_meeting() -> None:
    one, two = replicas("outer=noloco")
    assert one.legacy.layout == two.legacy.layout != one.layout
