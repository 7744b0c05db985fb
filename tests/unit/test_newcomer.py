"""What a newcomer's state is worth, whom it asks, and that nothing of its donors counts twice."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from peers.donors import ranked
from peers.link import MAX_ASKED, whom_to_ask
from swarmnet.config import RunFile
from swarmnet.data import Batches
from swarmnet.exchange.member import Status
from swarmnet.train import parcel
from swarmnet.train.evaluate import held_out_loss
from swarmnet.train.loop import Trainer
from swarmnet.train.parcel import Parcel
from swarmnet.train.replica import Replica
from tests.swarm.herd import RUN
from tests.unit.test_replica import meet

COLUMN = 512


@pytest.fixture(autouse=True)
def narrow_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many columns even of a tiny model."""
    monkeypatch.setattr(parcel, "_ALIGN", 1)
    monkeypatch.setattr(parcel, "CHUNK_BYTES", 4 * 5 * COLUMN)


class Swarm:
    """Three replicas that train on their own text and meet in turns, without a network."""

    def __init__(self, *overrides: str) -> None:
        run = self.run = RunFile.load(RUN, ["outer=noloco", "codec=raw", *overrides]).config
        self.builder = run.model.build("model", {})
        self.corpus = run.data.build("data", self.builder.tokenizer(), {})
        self.replicas = [self.replica(seed) for seed in range(3)]
        self.trainers = [
            Trainer(run, replica, Batches(self.corpus.train, run, f"peer-{i}"))
            for i, replica in enumerate(self.replicas)
        ]

    def replica(self, seed: int) -> Replica:
        return Replica(self.builder.build(self.run.seed), self.run, seed)

    def train(self, windows: int, steps: int = 4) -> None:
        pairs = list(combinations(self.replicas, 2))
        for window in range(windows):
            for trainer in self.trainers:
                for _ in range(steps):
                    trainer.step(0.3)
            meet(*pairs[window % 3])

    def joiner(self) -> Replica:
        """Column after column of another donor."""
        newcomer = self.replica(9)
        given = [Parcel(replica.tensors()) for replica in self.replicas]
        mixed = Parcel(newcomer.tensors())
        assert mixed.chunks > 30
        for chunk in range(mixed.chunks):
            body = given[chunk % 3].column(chunk, mixed.buffer())
            mixed.place(chunk, memoryview(bytearray(body)))
        mixed.take_scalars(given[0].scalars())
        newcomer.load(mixed.tensors, met=True)
        newcomer.begin_anew()
        return newcomer

    def loss(self, replica: Replica) -> float:
        return held_out_loss(replica.module, self.corpus.held_out, self.run.batch, 8000)[0]


def test_a_mixed_state_is_as_good_as_those_it_came_from_and_trains_on() -> None:
    swarm = Swarm()
    swarm.train(windows=12)
    newcomer = swarm.joiner()
    before = [swarm.loss(replica) for replica in swarm.replicas]
    joined = swarm.loss(newcomer)
    assert joined < max(before) + (max(before) - min(before)) + 0.02
    batches = Batches(swarm.corpus.train, swarm.run, "newcomer")
    swarm.trainers.append(Trainer(swarm.run, newcomer, batches))
    for step in range(10):
        swarm.trainers[-1].step(0.3)
        assert newcomer.theta.isfinite().all(), step
    assert swarm.loss(newcomer) < joined + 0.05


@pytest.mark.parametrize("overrides", [(), ("outer.by_work=true",)], ids=["theta", "by work"])
def test_in_its_first_meeting_a_newcomer_moves_its_partner_by_no_step_of_anybody(overrides) -> None:
    """The pair's slow weights go where the partner's own displacement takes them, and no further.

    Two copies of the partner's displacement would be in them if the newcomer had kept that of a
    donor between two meetings.
    """
    swarm = Swarm(*(("outer.name=noloco", *overrides) if overrides else ()))
    swarm.train(windows=6)
    for trainer in swarm.trainers:
        trainer.step(0.3)
    newcomer, partner = swarm.joiner(), swarm.replicas[0]
    before = [dict(replica.tensors()) for replica in (newcomer, partner)]
    assert torch.equal(before[0]["theta"], before[0]["outer.phi"])
    assert not torch.equal(before[1]["theta"], before[1]["outer.phi"])
    meet(newcomer, partner)
    after = [replica.tensors() for replica in (newcomer, partner)]
    config = swarm.run.outer.config("outer")
    momentum = sum(tensors["outer.delta"] for tensors in before) * config.alpha
    displacement = (before[1]["theta"] - before[1]["outer.phi"]) * config.beta
    moved = sum(new["outer.phi"] - old["outer.phi"] for new, old in zip(after, before, strict=True))
    assert torch.allclose(moved, momentum + displacement, atol=1e-6)


def test_plain_averaging_has_no_displacement_to_drop() -> None:
    swarm = Swarm("outer=average")
    swarm.train(windows=3)
    newcomer = swarm.joiner()
    theta = newcomer.theta.clone()
    newcomer.begin_anew()
    assert torch.equal(newcomer.theta, theta)


def known(**steps: int) -> dict[str, Status]:
    return {peer: Status(0, 0, "training", step=step) for peer, step in steps.items()}


def test_many_joiners_do_not_all_choose_the_same_donor_first() -> None:
    donors = known(a=100, b=99, c=95, slow=40, new=0)
    firsts = {ranked(f"joiner-{i}", donors)[0] for i in range(30)}
    assert firsts == {"a", "b", "c"}
    for i in range(30):
        order = ranked(f"joiner-{i}", donors)
        assert sorted(order[:3]) == ["a", "b", "c"]
        assert order[3:] == ["slow"]


def test_who_has_taken_no_step_is_no_donor() -> None:
    assert ranked("me", known(new=0)) == []


def test_bootstraps_are_asked_for_the_run_file_however_many_newcomers_are_nearer():
    near = [f"newcomer {n}" for n in range(20)]
    assert whom_to_ask([*near, "boot"], ["boot", "away"])[0] == "boot"
    assert whom_to_ask(near, ["boot"]) == [*near[:MAX_ASKED], "boot"]
    assert whom_to_ask([], ["boot", "away"]) == ["boot", "away"]
