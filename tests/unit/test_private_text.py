"""Peers with texts of their own: each reads all of it, and counts by its size within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from swarmnet.config import Choice, RunConfig
from swarmnet.data import Batches, Corpus
from swarmnet.data.private import Private, participation
from swarmnet.errors import ConfigError, DataError
from swarmnet.model._tokenizers import ByteTokenizer
from swarmnet.sharing import Span
from swarmnet.train.replica import Replica
from tests.outers import sent_by, solo_move

TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
BY_WORK = {"name": "noloco", "by_work": True}
P = 50


def config(**choices: object) -> RunConfig:
    table = {
        "schema": 1,
        "name": "private",
        "target": {"tokens": 1000, "minutes": 1},
        "batch": {"sequences": 2, "length": 16},
        "model": {"name": "causal_lm", "config": TINY},
        "data": "private",
        "sharing": "own",
        "outer": BY_WORK,
    }
    return RunConfig.model_validate(table | choices)


def corpus(path: Path, letter: str, size: int) -> Corpus:
    path.write_text(letter * size)
    return Choice(name="private").build("data", ByteTokenizer(), {"private": path}, None)


def test_everybody_reads_its_own_text_and_all_of_it(tmp_path: Path) -> None:
    for letter, size in (("a", 400), ("b", 4000)):
        own = corpus(tmp_path / "mine.txt", letter, size)
        batches, seen = Batches(own.train, config(), letter), set()
        windows = (own.train.size - 16) // 16
        for _ in range(-(-windows // 2)):
            tokens = batches.next({"other": Span(0, 3)})
            assert set(tokens.unique().tolist()) <= {ord(letter), ByteTokenizer.end}
            seen.add(tokens.shape)
        assert seen == {(2, 17)}
        assert batches.sharing.finished() == []


def test_a_text_that_is_not_named() -> None:
    with pytest.raises(DataError, match=r"texts.private"):
        Choice(name="private").build("data", ByteTokenizer(), {}, None)


@pytest.mark.parametrize(
    ("power", "tokens", "weight"),
    [(0.5, 1_000_000, 16), (0.5, 4_000_000, 32), (0.5, 250_000, 8), (1, 4_000_000, 64),
     (1, 10**12, 256), (1, 1, 1), (0.5, 0, 1), (0, 10**12, 16)],
)  # fmt: skip
def test_a_peer_counts_by_size_within_bounds(power: float, tokens: int, weight: int) -> None:
    assert participation(tokens, Private.Config(power=power)) == weight


def test_a_replica_tells_its_weight_with_its_work() -> None:
    run = config()
    replica = Replica(run.model.build("model", {}).build(0), run, 0)
    plain = replica.effort(7, 0.1)
    replica.weight = 32
    assert (plain, replica.effort(7, 0.1)) == (7, 7 * 32)
    assert replica.effort(2**31, 0.1) == 2**32 - 1


def test_the_mean_moves_by_the_displacements_weighed_by_size_and_by_nothing_else() -> None:
    """Rounds of three; phi is weighed equally, so consensus cancels."""
    source = torch.Generator().manual_seed(0)
    weights, steps = [4, 16, 24], 10
    outers = [Choice(**BY_WORK).build("outer") for _ in weights]
    theta = torch.randn(3, P, generator=source, dtype=torch.float64)
    for outer, start in zip(outers, theta, strict=True):
        outer.start(start)
    for _ in range(4):
        before = theta.clone()
        moves = torch.randn(3, P, generator=source, dtype=torch.float64)
        delta = torch.stack([outer.tensors()["delta"] for outer in outers]).mean(0)
        theta = before + moves
        payloads = torch.stack([sent_by(o, t) for o, t in zip(outers, theta, strict=True)])
        works = [w * o.effort(steps, 0.1) for w, o in zip(weights, outers, strict=True)]
        shares = torch.tensor(outers[0].shares(works), dtype=torch.float64)
        shares = shares / shares.sum(1, keepdim=True)
        mean = torch.einsum("wm,mwp->wp", shares, payloads)
        after = []
        for outer, own, payload in zip(outers, theta, payloads, strict=True):
            move = solo_move(outer, own)
            correction = outer.correction((mean - payload).clone())
            outer.settle(correction)
            after.append(own + move + correction)
        theta = torch.stack(after)
        share = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        expected = before.mean(0) + 0.5 * delta + 0.7 * (share[:, None] * moves).sum(0)
        assert (theta.mean(0) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"sharing": "rendezvous"}, 'sharing = "own"'),
        ({"outer": "noloco"}, "outer.by_work"),
        ({"outer": "average"}, "outer.by_rate"),
        ({"pipeline": {"stages": 2}}, "data.power = 0"),
    ],
)
def test_choices_that_do_not_fit_private_text(choices: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(**choices)


def test_choices_that_fit() -> None:
    config(outer={"name": "average", "by_rate": True})
    config(outer="average", data={"name": "private", "power": 0})
    config(sharing="independent")
