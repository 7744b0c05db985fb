"""Endless batches: windows of a text, as a sharing hands them to one peer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarmnet.config import RunConfig
from swarmnet.sharing import ALONE, Ground, Position, Sharing, View


class Batches:
    """One peer's batches. ``ids`` may be a memory map: a batch touches its own windows alone."""

    def __init__(self, ids: NDArray[Any], run: RunConfig, peer: str) -> None:
        """Raises DataError when ``ids`` hold not even one window."""
        self._ids = ids
        self._batch = run.batch
        ground = Ground(ids.size, run.batch.length, run.seed, peer)
        self.sharing: Sharing = run.sharing.build("sharing", ground)

    def next(self, view: View = ALONE) -> Tensor:
        """(sequences, length + 1) int64; inputs and targets overlap by one."""
        starts = self.sharing.next(self._batch.sequences, view)[:, None]
        windows = self._ids[starts + np.arange(self._batch.length + 1)]
        return torch.from_numpy(windows.astype(np.int64))

    def position(self) -> Position:
        """All that ``resume`` needs to go on with the very next batch, as JSON can say it."""
        return self.sharing.position()

    def resume(self, position: Position) -> None:
        """Go on from ``position``. Raises KeyError, TypeError or ValueError when it is unsound."""
        self.sharing.resume(position)
