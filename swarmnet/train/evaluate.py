"""How good a module is: held-out loss on fixed windows, and text that it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from swarmnet.config import Batch
from swarmnet.errors import DataError
from swarmnet.model import logits


def token_loss(module: nn.Module, tokens: Tensor) -> Tensor:
    """Mean cross entropy of the next token, nats: (B, T + 1) int64 -> scalar float32."""
    scores = logits(module, tokens[:, :-1])
    return functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].reshape(-1))


def held_out_loss(
    module: nn.Module, ids: NDArray[Any], batch: Batch, max_tokens: int
) -> tuple[float, int]:
    """Nats per token and the tokens that it was measured on.

    The windows depend on nothing but the arguments and are spread evenly over ``ids``, so that
    replicas and merged model are measured on the same text, and on more than its first pages.

    Raises:
        DataError: ``ids`` hold less than two tokens.
    """
    windows = _windows(ids, batch.length, max_tokens)
    total = 0.0
    with _inference(module) as device:
        for part in np.array_split(windows, -(-len(windows) // batch.sequences)):
            tokens = torch.from_numpy(part).to(device)
            total += token_loss(module, tokens).item() * tokens[:, 1:].numel()
    count = windows[:, 1:].size
    return total / count, count


def generate(
    module: nn.Module, prompt_ids: Sequence[int], n: int, seed: int, temperature: float
) -> list[int]:
    """``n`` sampled ids that follow a prompt of at least one; temperature 0 takes the likeliest.

    Sampling happens on the CPU with a generator of its own, so a seed gives the same text
    wherever the module stands, up to rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    reach = getattr(module.config, "max_position_embeddings", 1024)
    ids = [int(i) for i in prompt_ids]
    with _inference(module) as device:
        for _ in range(n):
            context = torch.tensor([ids[-reach:]], device=device)
            ids.append(_drawn(logits(module, context)[0, -1].cpu(), generator, temperature))
    return ids[len(prompt_ids) :]


def _drawn(scores: Tensor, generator: torch.Generator, temperature: float) -> int:
    if temperature == 0:
        return int(scores.argmax())
    chances = torch.softmax(scores.double() / temperature, dim=-1)
    return int(torch.multinomial(chances, 1, generator=generator))


def _windows(ids: NDArray[Any], length: int, max_tokens: int) -> NDArray[np.int64]:
    """(windows, length + 1) int64, not overlapping in their targets."""
    length = min(length, ids.size - 1)
    if length < 1:
        raise DataError("the held-out text has less than two tokens")
    fitting = (ids.size - 1) // length
    count = min(fitting, max(1, max_tokens // length))
    starts = np.arange(count) * fitting // count * length
    windows: NDArray[np.int64] = ids[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return windows


@contextmanager
def _inference(module: nn.Module) -> Iterator[torch.device]:
    """No gradients and no dropout; the module's mode is what it was afterwards."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield next(module.parameters()).device
    finally:
        module.train(training)
