"""What all corpora share: who is held out, how documents are joined, what names the result."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from swarmnet.content import DIGITS
from swarmnet.model import Tokenizer, id_type

HELD_OUT = 0.05


def held_out_names(names: Collection[str]) -> frozenset[str]:
    """Names whose hash falls in the lowest 5 %, and at least one of them.

    A fixed threshold, not a rank: a file held out on one peer is not trained on by another whose
    folder has a file more.
    """
    low = frozenset(name for name in names if _place(name) < HELD_OUT)
    return low or frozenset([min(names, key=_place)])


def joined(documents: Iterable[str | bytes], tokenizer: Tokenizer) -> NDArray[Any]:
    """Ids of all documents, each followed by the end token: (n,)."""
    kind = id_type(tokenizer.vocab_size)
    parts = [np.empty(0, kind)]
    for document in documents:
        parts += [tokenizer.encode(document), np.array([tokenizer.end], kind)]
    return np.concatenate(parts)


def corpus_hash(train: NDArray[Any], held_out: NDArray[Any]) -> str:
    """32 hex digits over both id vectors."""
    whole = blake3()
    for ids in (train, held_out):
        whole.update(f"{ids.size} {ids.dtype.str}\n".encode())
        whole.update(np.ascontiguousarray(ids).data.cast("B"))
    return whole.hexdigest(length=DIGITS // 2)


def _place(name: str) -> float:
    """A name's place between 0 and 1, the same on every machine."""
    # Of the usual hashes the one whose 5 % of the standard library is a fair sample of it:
    # sha256 holds out one file of prose (pydoc's topics) that outweighs all other held-out files.
    return int.from_bytes(hashlib.blake2b(name.encode()).digest()[:8], "big") / 2**64
