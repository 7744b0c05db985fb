"""What a swarm reads: a corpus as token ids, and endless batches out of it.

A choice in this folder turns text into two id vectors: what is trained on and what is held out.
The held-out share is chosen by hashed names, so that every peer holds out the same text without
asking anybody. Which windows of it a peer reads is the run's ``sharing``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

from numpy.typing import NDArray

from swarmnet.data._batches import Batches

__all__ = ["Batches", "Corpus"]


@runtime_checkable
class Corpus(Protocol):
    """Text as ids, built as ``Class(config, tokenizer, paths, cache)``; raises DataError.

    ``paths``: where texts of this machine are; ``cache``: a folder for tokenised ones, or None.

    ``train`` and ``held_out`` are (n,) of an unsigned type, in memory or mapped from a file;
    ``hash`` is 32 hex digits over both, so that two peers can see in the events whether they read
    the same text.
    """

    shared: ClassVar[bool]
    """All peers read the same text."""
    weight: int
    """How much this peer's work counts beside that of others of its run."""
    train: NDArray[Any]
    held_out: NDArray[Any]
    hash: str
