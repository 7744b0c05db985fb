from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from swarmnet.config import Batch
from swarmnet.errors import DataError
from swarmnet.train.evaluate import generate, held_out_loss, token_loss

VOCAB = 11
BATCH = Batch(sequences=3, length=8)


class Bigram(nn.Module):
    """Scores of the next id from a table; records what it was shown."""

    def __init__(self, reach: int = 64) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(VOCAB, VOCAB))
        self.dropout = nn.Dropout(0.5)
        self.config = SimpleNamespace(max_position_embeddings=reach)
        self.seen: list[torch.Tensor] = []

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        assert not use_cache
        self.seen.append(input_ids)
        return SimpleNamespace(logits=self.dropout(self.table[input_ids]))


def successor() -> Bigram:
    module = Bigram()
    for i in range(VOCAB):
        module.table.data[i, (i + 1) % VOCAB] = 5.0
    return module


IDS = (np.arange(1000) % VOCAB).astype(np.uint16)


def test_ignorance_costs_log_vocab() -> None:
    loss, tokens = held_out_loss(Bigram(), IDS, BATCH, max_tokens=200)
    assert loss == pytest.approx(math.log(VOCAB))
    assert tokens == 200


def test_loss_is_the_mean_over_all_tokens_whatever_the_batch() -> None:
    torch.manual_seed(0)
    module = Bigram()
    module.table.data.normal_()
    losses = [
        held_out_loss(module, IDS, Batch(sequences=n, length=8), max_tokens=10**9)
        for n in (1, 3, 50)
    ]
    assert {tokens for _, tokens in losses} == {124 * 8}
    logs = torch.log_softmax(module.table.detach().double(), -1)
    ids = torch.from_numpy(IDS.astype(np.int64))
    expected = -logs[ids[:992], ids[1:993]].mean().item()
    assert [loss for loss, _ in losses] == pytest.approx([expected] * 3, rel=1e-6)


def test_windows_are_fixed_spread_and_apart() -> None:
    module = Bigram()
    ids = np.arange(1000) % VOCAB
    held_out_loss(module, ids, BATCH, max_tokens=80)
    first = [tokens.tolist() for tokens in module.seen]
    module.seen.clear()
    held_out_loss(module, ids, BATCH, max_tokens=80)
    assert [tokens.tolist() for tokens in module.seen] == first
    starts = np.arange(10) * 124 // 10 * 8
    assert [row[0] for part in first for row in part] == (starts % VOCAB).tolist()


def test_module_is_left_as_it_was() -> None:
    module = successor().train()
    loss, _ = held_out_loss(module, IDS, BATCH, max_tokens=100)
    assert loss < 0.1
    assert module.training
    assert module.table.grad is None
    assert torch.is_grad_enabled()
    module.eval()
    generate(module, [0], 2, seed=0, temperature=1.0)
    assert not module.training


def test_short_text_is_one_window_and_shorter_is_refused() -> None:
    assert held_out_loss(successor(), IDS[:4], BATCH, max_tokens=100)[1] == 3
    for ids in (IDS[:1], IDS[:0]):
        with pytest.raises(DataError, match="less than two"):
            held_out_loss(Bigram(), ids, BATCH, max_tokens=100)


def test_token_loss_is_differentiable_and_in_nats() -> None:
    module = Bigram().eval()
    loss = token_loss(module, torch.tensor([[1, 2, 3]]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(VOCAB))
    assert module.table.grad is not None
    assert torch.count_nonzero(module.table.grad[3]) == 0


def test_likeliest_follows_the_table() -> None:
    assert generate(successor(), [3, 4], 9, seed=0, temperature=0.0) == [
        *(i % VOCAB for i in range(5, 14))
    ]


def test_sampling_depends_on_its_seed_alone() -> None:
    module = Bigram()
    torch.manual_seed(1)
    first = generate(module, [0], 30, seed=5, temperature=0.8)
    torch.manual_seed(2)
    assert generate(module, [0], 30, seed=5, temperature=0.8) == first
    assert generate(module, [0], 30, seed=6, temperature=0.8) != first
    assert set(first) <= set(range(VOCAB))


def test_context_stays_within_the_models_reach() -> None:
    module = Bigram(reach=6)
    assert len(generate(module, [1] * 9, 5, seed=0, temperature=1.0)) == 5
    assert {tokens.shape for tokens in module.seen} == {(1, 6)}
