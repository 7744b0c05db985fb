from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import swarmnet.train.loop
from peers.gain import speedup
from peers.solo import train_alone
from swarmnet.config import RunConfig
from swarmnet.data import Batches
from swarmnet.train.loop import Trainer
from swarmnet.train.replica import Replica

CPU = torch.device("cpu")
TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
RUN = RunConfig.model_validate(
    {
        "schema": 1,
        "name": "tiny",
        "target": {"tokens": 1000, "minutes": 1},
        "batch": {"sequences": 4, "length": 16},
        "model": {"name": "causal_lm", "config": TINY},
        "inner": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.0},
    }
)
COUNTING = (np.arange(3000) % 7).astype(np.uint8)
CORPUS = SimpleNamespace(train=COUNTING, held_out=COUNTING[:500], hash="0" * 32)


def test_a_lone_worker_learns_what_can_be_learned() -> None:
    result = train_alone(RUN, CORPUS, 40, 3e-2, 0, CPU)
    assert (result.steps, result.lr, result.tokens) == (40, 3e-2, 40 * 4 * 16)
    assert result.loss < 0.5 < math.log(7)


def test_its_schedule_is_its_own_from_the_first_step_to_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    real = swarmnet.train.loop.rate

    def spy(progress, peak, schedule):
        asked.append((progress, peak))
        return real(progress, peak, schedule)

    monkeypatch.setattr(swarmnet.train.loop, "rate", spy)
    train_alone(RUN, CORPUS, 5, 2e-3, 0, CPU)
    assert asked == [(step / 5, 2e-3) for step in range(5)]


def test_the_seed_decides_and_nothing_else() -> None:
    torch.manual_seed(1)
    first = train_alone(RUN, CORPUS, 3, 1e-2, 7, CPU)
    torch.manual_seed(2)
    assert train_alone(RUN, CORPUS, 3, 1e-2, 7, CPU) == first
    assert train_alone(RUN, CORPUS, 3, 1e-2, 8, CPU).loss != first.loss


def test_a_worker_that_resumes_reads_and_learns_as_if_it_had_never_stopped() -> None:
    def beginning() -> Trainer:
        replica = Replica(RUN.model.build("model", {}).build(0), RUN, 0)
        return Trainer(RUN, replica, Batches(COUNTING, RUN, "me"))

    whole, first, second = beginning(), beginning(), beginning()
    for step in range(20):
        whole.step(step / 20)
    for step in range(9):
        first.step(step / 20)
    second.replica.load(first.replica.tensors(), met=False)
    second.batches.resume(json.loads(json.dumps(first.batches.position())))
    for step in range(9, 20):
        second.step(step / 20)
    assert torch.equal(whole.replica.theta, second.replica.theta)


def test_other_options_of_the_optimizer_are_kept() -> None:
    tied = RunConfig.model_validate(
        RUN.model_dump(by_alias=True)
        | {"inner": {"name": "adamw", "clip": 1e-9, "eps": 1.0, "weight_decay": 0.0}}
    )
    # The first step is taken at rate zero, so one step leaves the first weights as they are.
    untrained = train_alone(RUN, CORPUS, 1, 1e-2, 0, CPU).loss
    assert train_alone(tied, CORPUS, 10, 1e-2, 0, CPU).loss == pytest.approx(untrained)
    assert train_alone(RUN, CORPUS, 10, 1e-2, 0, CPU).loss < untrained - 0.1


def test_speedup_lies_on_the_line_between_the_two_ends() -> None:
    def curve(steps: float) -> float:
        return 4.0 - 0.3 * math.log(steps)

    ends = (450, curve(450)), (585, curve(585))
    for factor in (1.0, 1.1, 1.3, 0.8, 0.55):
        assert speedup(curve(450 * factor), *ends) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("merged", "expected"),
    [(1.85, 1.0), (1.75, 1.3), (1.7499, ">=1.3"), (0.5, ">=1.3"), (2.5, "<=0.5"), (99.0, "<=0.5")],
)
def test_speedup_claims_no_more_than_was_measured(merged: float, expected: float | str) -> None:
    result = speedup(merged, (1000, 1.85), (1300, 1.75))
    assert result == (expected if isinstance(expected, str) else pytest.approx(expected))


def test_the_longer_run_is_named_by_its_real_length() -> None:
    assert speedup(1.0, (437, 2.0), (568, 1.9)) == ">=1.3"
    assert speedup(1.0, (100, 2.0), (115, 1.9)) == ">=1.15"


@pytest.mark.parametrize(
    ("merged", "expected"), [(1.7, ">=1.3"), (1.8, 1.0), (1.85, "<=1"), (2.0, "<=1")]
)
def test_where_more_steps_do_not_help_there_is_no_line(
    merged: float, expected: float | str
) -> None:
    assert speedup(merged, (1000, 1.8), (1300, 1.9)) == expected


@pytest.mark.parametrize(
    ("merged", "first", "second"),
    [
        (math.nan, (10, 2.0), (13, 1.9)),
        (1.9, (10, math.inf), (13, 1.9)),
        (1.9, (13, 2.0), (13, 1.9)),
        (1.9, (0, 2.0), (13, 1.9)),
    ],
)
def test_speedup_refuses_what_it_cannot_compare(
    merged: float, first: tuple[int, float], second: tuple[int, float]
) -> None:
    with pytest.raises(ValueError, match="finite"):
        speedup(merged, first, second)
