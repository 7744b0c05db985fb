"""Frozen numbers that every peer makes for itself: an orthonormal basis and an embedding.

They are made of counted random bits, and of sums, products and quotients of single numbers, which
IEEE 754 rounds in one way. A QR decomposition, a sum over an axis or a cosine differ in their last
bits between machines.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BASIS, ROWS = 0, 1  # streams of random bits under one seed
ROUNDS = 3  # times log2(d): rotations until each direction is spread over all features
LEVELS_STD = (((1 << 16) - 1) / 12) ** 0.5  # of a uniform choice among 256 whole numbers


class Span:
    """The columns of U, (d, k) orthonormal: what of an activation crosses a cut."""

    def __init__(self, width: int, k: int, seed: int) -> None:
        self._matrix = torch.from_numpy(_orthonormal(width, k, seed))
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def matrix(self, like: Tensor) -> Tensor:
        """U, rounded to the dtype of ``like`` and on its device."""
        key = (like.device, like.dtype)
        if key not in self._copies:
            self._copies[key] = self._matrix.to(*key)
        return self._copies[key]

    def project(self, vectors: Tensor) -> Tensor:
        """The nearest vectors in the span: (..., d) -> (..., d)."""
        basis = self.matrix(vectors)
        return vectors @ basis @ basis.T

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, so that copies of a stage share it


class FrozenRows:
    """The embedding F, (vocab, d), that no peer trains or sends: 8 bits a number, uniform."""

    def __init__(self, shape: tuple[int, int], std: float, seed: int) -> None:
        vocab, width = shape
        self._grain = std / LEVELS_STD
        raw = _bits(seed, ROWS).random_raw(-(-vocab * width // 8))
        levels = raw.view(np.int8)[: vocab * width].reshape(vocab, width)
        self._levels = {torch.device("cpu"): torch.from_numpy(levels)}

    def rows(self, ids: Tensor, like: Tensor) -> Tensor:
        """F[ids]: (...) int64 -> (..., d) in the dtype of ``like`` and on its device."""
        return self._valued(self._on(like.device)[ids], like)

    def all(self, like: Tensor) -> Tensor:
        """F: (vocab, d) in the dtype of ``like`` and on its device."""
        return self._valued(self._on(like.device), like)

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._levels:
            self._levels[device] = self._levels[torch.device("cpu")].to(device)
        return self._levels[device]

    def _valued(self, levels: Tensor, like: Tensor) -> Tensor:
        return levels.to(like.dtype).add_(0.5).mul_(self._grain)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _bits(seed: int, stream: int) -> np.random.Philox:
    """Random bits by counter; numpy promises that their stream stays as it is."""
    return np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))


def _orthonormal(width: int, k: int, seed: int) -> NDArray[np.float64]:
    """The first k axes after rounds of rotations in planes of random pairs of features."""
    source = _bits(seed, BASIS)
    basis = np.eye(width, k)
    for _ in range(ROUNDS * width.bit_length()):
        order = np.argsort(source.random_raw(width), kind="stable")
        one, other = order[: width // 2], order[width // 2 : width // 2 * 2]
        # tan(angle / 2), uniform in [-1, 1): cosine and sine without a cosine.
        tangent = ((source.random_raw(width // 2) >> 11) * 2.0**-52 - 1.0)[:, None]
        norm = 1.0 + tangent * tangent
        cosine, sine = (1.0 - tangent * tangent) / norm, (tangent + tangent) / norm
        a, b = basis[one], basis[other]
        basis[one] = cosine * a - sine * b
        basis[other] = sine * a + cosine * b
    return basis
