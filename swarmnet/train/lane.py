"""The exchange's own way to the accelerator, so that its copies never wait behind inner steps.

On a CPU there is nothing to separate and a lane costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Lane:
    """A CUDA stream of the exchange beside the training thread's stream."""

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self._captured = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]

    def mark(self) -> None:
        """Training thread: what was queued so far belongs to the snapshot."""
        if self._captured is not None:
            self._captured.record()

    @contextmanager
    def hold(self, lock: threading.Lock) -> Iterator[None]:
        """Work of the exchange: behind the snapshot, beside inner steps, done when this ends."""
        with lock:
            if self._stream is None or self._captured is None:
                yield
                return
            self._stream.wait_event(self._captured)
            with torch.cuda.stream(self._stream):
                yield
            # Whoever reads the result, on whatever stream, must find it there.
            self._stream.synchronize()
