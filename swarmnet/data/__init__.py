"""What a swarm reads: a corpus as token ids, and endless batches out of it.

A choice in this folder turns text into two id vectors: what is trained on and what is held out.
The held-out share is chosen by hashed names, so that every peer holds out the same text without
asking anybody. Which windows of it a peer reads is the run's ``sharing``.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from swarmnet.data._batches import Batches

__all__ = ["Batches", "Corpus"]


@runtime_checkable
class Corpus(Protocol):
    """Text as ids, built as ``Class(config, tokenizer, paths)``; raises DataError.

    ``train`` and ``held_out`` are (n,) of an unsigned type; ``hash`` is 32 hex digits over both,
    so that two peers can see in the events whether they read the same text.
    """

    train: NDArray[Any]
    held_out: NDArray[Any]
    hash: str
