"""Orders that every peer computes alike and nobody has to keep: hashes and permutations of indices.

All arithmetic is modulo 2^64 on numpy vectors, so that it is the same bits on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
ROUNDS = 6


def word(*parts: object) -> int:
    """64 bits that name ``parts``."""
    text = " ".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def mixed(values: Words) -> Words:
    """Each value scattered over all 64 bits (splitmix64's finaliser; Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permuted(places: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Where each of ``places`` goes in a permutation of ``range(size)`` that ``key`` names.

    A Feistel network over the next power of four; what falls outside walks on until it falls
    inside (Black and Rogaway 2002), less than four times on average.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    values = _scrambled(places.astype(np.uint64), half, key)
    while (outside := values >= np.uint64(size)).any():
        values[outside] = _scrambled(values[outside], half, key)
    return values.astype(np.int64)


def _scrambled(values: Words, half: int, key: int) -> Words:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for turn in range(ROUNDS):
        left, right = right, left ^ (mixed(right ^ np.uint64(word(key, turn))) & mask)
    return (left << bits) | right
