"""Endless batches that need no state: a batch is a function of the run, the peer and an index."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarmnet.config import Batch
from swarmnet.errors import DataError


class Batches:
    """One peer's stream of random windows; a peer that resumes at an index reads on there.

    The numbers come from a counter-based generator (Philox; Salmon et al. 2011) keyed by run seed
    and peer, with the batch's index as counter.
    """

    def __init__(self, ids: NDArray[Any], batch: Batch, seed: int, peer: str) -> None:
        """Raises DataError when ``ids`` hold not even one window."""
        if ids.size <= batch.length:
            raise DataError(f"the text has {ids.size} tokens; a window needs {batch.length + 1}")
        self._ids = ids
        self._batch = batch
        digest = hashlib.sha256(f"{seed} {peer}".encode()).digest()
        self._key = int.from_bytes(digest[:16], "big")

    def batch(self, index: int) -> Tensor:
        """Batch ``index``: (sequences, length + 1) int64; inputs and targets overlap by one."""
        generator = np.random.Generator(np.random.Philox(key=self._key, counter=index << 128))
        last = self._ids.size - self._batch.length
        starts = generator.integers(0, last, size=(self._batch.sequences, 1))
        windows = self._ids[starts + np.arange(self._batch.length + 1)]
        return torch.from_numpy(windows.astype(np.int64))
