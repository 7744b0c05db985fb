"""A worker that goes on from its checkpoint does what it would have done without the stop."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peers import resume
from peers.portrait import Portrait
from swarmnet.config import RunFile
from swarmnet.data import Batches
from swarmnet.errors import PayloadError
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.ledger import Open
from swarmnet.exchange.links import Links
from swarmnet.exchange.membership import Membership
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.window import Window
from swarmnet.sim.network import Link, SimNetwork
from swarmnet.train import checkpoint
from swarmnet.train.loop import Trainer
from swarmnet.train.replica import Replica
from tests.swarm.herd import RUN
from tests.unit.groups import inline

TOTAL = 40
IDS = np.random.default_rng(5).integers(0, 257, 5000)


class Lone:
    """A worker without a network: steps, and windows that end alone."""

    def __init__(self, *overrides: str, seed: int = 1) -> None:
        run = self.run = RunFile.load(RUN, overrides).config
        self.replica = Replica(run.model.build("model", {}).build(run.seed), run, seed)
        self.trainer = Trainer(run, self.replica, Batches(IDS, run, "me"))
        rng = random.Random(seed)
        window = Window("me", run.cadence.build("cadence"), run.matching.build("matching"), rng)
        self.desk = Desk(self.replica, window.welcome_at)
        self.events: list[Any] = []
        network = SimNetwork(lambda a, b: Link())
        around = Surroundings(
            transport=network.transport("me"),
            membership=Membership("me", 1.0),
            links=Links(),
            mine=lambda: None,
            offload=inline,
            emit=self.events.append,
            clock=lambda: 0.0,
        )
        self.gossip = Gossip(around, window, self.desk, self.replica, 7)
        self.parts = resume.Parts(self.replica, self.trainer, self.gossip)
        torch.manual_seed(seed)

    def meet(self) -> None:
        """As if somebody had been here once: from now on windows end with an outer step."""
        noise = torch.Generator().manual_seed(3)
        snapshot = self.replica.capture()
        self.replica.apply_met(snapshot, torch.randn(snapshot.theta.shape, generator=noise) / 100)

    def go(self, until: int) -> Lone:
        window = self.gossip.window
        while self.trainer.steps < until:
            steps = self.trainer.steps
            self.desk.boundary(steps, steps / TOTAL)
            window.boundary(steps, steps / TOTAL, 0.0)
            if window.ripe and self.desk.has_snapshot():
                self.gossip.settling.alone(0)
            self.trainer.step(steps / TOTAL)
        return self

    def apply_all(self) -> None:
        self.desk.boundary(self.trainer.steps, self.trainer.steps / TOTAL)
        assert self.desk.all_applied

    def kept(self, folder: Path) -> Portrait:
        """Through the disk and back."""
        facts = {
            "step": self.trainer.steps,
            "tokens": 5,
            "elapsed_s": 1.0,
            "met": self.replica.met,
        }
        portrait = resume.memorise(self.parts, facts)
        portrait.finish()
        checkpoint.write(folder, portrait.tensors, portrait.facts)
        found = checkpoint.read(folder)
        assert found is not None
        return Portrait(*found)

    def take(self, kept: Portrait) -> Lone:
        resume.check(kept, self.replica)
        resume.answer_for(kept, self.gossip)
        resume.resume(kept, self.replica, self.trainer)
        return self


def same(one: Lone, other: Lone) -> bool:
    mine, theirs = one.replica.tensors(), other.replica.tensors()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("outer=noloco",),
        ("outer=noloco", "cadence.h=5", "codec=int8"),
        ("model.config.attention_dropout=0.3",),
    ],
)
@pytest.mark.parametrize("stop", [1, 17, 20])
def test_a_resumed_peer_is_bit_identical_to_an_uninterrupted_one(
    tmp_path: Path, overrides: tuple[str, ...], stop: int
) -> None:
    whole = Lone(*overrides).go(1)
    whole.meet()
    whole.go(TOTAL)
    first = Lone(*overrides).go(1)
    first.meet()
    first.go(stop).apply_all()
    kept = first.kept(tmp_path)
    second = Lone(*overrides, seed=99).take(kept)  # another process has another noise
    assert second.trainer.steps == stop
    assert not same(second, whole)
    assert same(second.go(TOTAL), whole)


def test_the_noise_of_the_codec_goes_on(tmp_path: Path) -> None:
    one = Lone("codec=int8").go(3)
    one.replica.encode(one.replica.capture(), 0)
    two = Lone("codec=int8", seed=99).take(one.kept(tmp_path))
    ours, theirs = (bytes(w.replica.encode(w.replica.capture(), 0)) for w in (one, two))
    assert ours == theirs


def test_the_window_goes_on_where_it_stood(tmp_path: Path) -> None:
    one = Lone("cadence.h=10").go(27)
    window = one.gossip.window
    window.history.append("ann")
    again = Lone("cadence.h=10", seed=99).take(one.kept(tmp_path)).gossip.window
    assert again.memory() == window.memory()
    assert again.work(27) == window.work(27) == 27 - window.origin > 0


def open_question(lone: Lone, round_: int, phase: str = "train") -> Open[Any]:
    correction = torch.full_like(lone.replica.theta, 0.5)
    item = Open("ann", round_, correction, 0, phase, 3, ("bob",))
    lone.gossip.pending.add(item)
    return item


def test_open_questions_are_kept_with_their_corrections(tmp_path: Path) -> None:
    one = Lone().go(3)
    open_question(one, 11)
    open_question(one, 12, "consensus")
    kept = one.kept(tmp_path)
    two = Lone(seed=99).take(kept)
    [asked] = two.gossip.pending.of("ann")
    assert (asked.round, asked.step, asked.witnesses) == (11, 3, ("bob",))
    before = two.replica.theta.clone()
    correction = two.gossip.pending.resolve(asked, "applied")
    two.gossip.settling.late(asked, correction)
    two.desk.boundary(3, 0.0)
    assert torch.equal(two.replica.theta, before + 0.5)
    assert two.gossip.pending.owed() == []


def test_an_answer_that_is_not_in_the_weights_yet_is_asked_for_again(tmp_path: Path) -> None:
    one = Lone().go(3)
    item = open_question(one, 11)
    one.gossip.settling.late(item, one.gossip.pending.resolve(item, "applied"))
    assert len(one.gossip.pending) == 0
    assert len(Lone(seed=9).take(one.kept(tmp_path / "before")).gossip.pending) == 1
    one.desk.boundary(3, 0.0)
    assert len(Lone(seed=9).take(one.kept(tmp_path / "after")).gossip.pending) == 0


@pytest.mark.parametrize("outcome", ["dropped", "applied"])
def test_a_question_that_is_over_is_not_kept(tmp_path: Path, outcome: Any) -> None:
    one = Lone().go(3)
    item = open_question(one, 11)
    correction = one.gossip.pending.resolve(item, outcome)
    if correction is not None:
        one.gossip.settling.late(item, correction)
        one.desk.boundary(3, 0.0)
    assert not json.loads(json.dumps(dict(one.kept(tmp_path).facts)))["questions"]


def test_rounds_of_others_that_are_in_the_weights_are_answered_as_applied(tmp_path: Path) -> None:
    one = Lone().go(3)
    one.gossip.settling.in_weights.append(("ann", 5))
    two = Lone(seed=9).take(one.kept(tmp_path))
    assert two.gossip.decisions.tell("ann", 5) == "applied"
    assert two.gossip.decisions.tell("ann", 6) == "dropped"


def test_another_models_checkpoint_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    kept = Lone("model.config.hidden_size=64").go(2).kept(tmp_path)
    lone = Lone()
    before = lone.replica.theta.clone()
    with pytest.raises(PayloadError, match="another model"):
        resume.check(kept, lone.replica)
    assert torch.equal(lone.replica.theta, before)


@pytest.mark.parametrize("missing", ["window", "reading", "questions", "step", "in_weights"])
def test_a_checkpoint_without_a_fact_is_refused(tmp_path: Path, missing: str) -> None:
    kept = Lone().go(2).kept(tmp_path)
    facts = {key: value for key, value in kept.facts.items() if key != missing}
    with pytest.raises(PayloadError, match=missing):
        resume.check(Portrait(kept.tensors, facts), Lone().replica)


@pytest.mark.parametrize("name", ["open.0", "random.codec", "theta"])
def test_a_checkpoint_without_a_tensor_is_refused(tmp_path: Path, name: str) -> None:
    lone = Lone().go(2)
    open_question(lone, 11)
    kept = lone.kept(tmp_path)
    tensors = {key: value for key, value in kept.tensors.items() if key != name}
    with pytest.raises(PayloadError):
        resume.check(Portrait(tensors, kept.facts), lone.replica)
