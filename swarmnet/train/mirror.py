"""Host memory that a replica's state is copied to between two steps, for its checkpoints.

It is reserved once, with the first copy: asking the system for fresh memory takes longer than the
copy itself. One copy is in use at a time; whoever takes the next one must be done with the last.

On CUDA the copy goes through pinned memory on a stream of its own, beside the next forward and
backward pass; only what moves the state waits for it, and the training thread never does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Mirror:
    """The copy of one state. ``take`` and ``guard``: training thread; ``finish``: any thread."""

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]
        self._host: dict[str, Tensor] = {}
        self._pending = False

    def take(self, live: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy ``live`` into host memory; on CUDA the values are there after ``finish``."""
        for name, tensor in live.items():
            held = self._host.get(name)
            if held is None or held.shape != tensor.shape:
                self._host[name] = torch.empty(
                    tensor.shape, dtype=tensor.dtype, pin_memory=self._stream is not None
                )
        if self._stream is None or self._done is None:
            self._copy(live)
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
            with torch.cuda.stream(self._stream):
                self._copy(live)
                self._done.record(self._stream)
            self._pending = True
        return {name: self._host[name] for name in live}

    def guard(self) -> None:
        """The state is about to move: what is queued from here on waits for the copy."""
        if self._pending and self._stream is not None and self._done is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._done)
            self._pending = False

    def finish(self) -> None:
        """Wait until the values are in host memory."""
        if self._done is not None:
            self._done.synchronize()

    @torch.no_grad()
    def _copy(self, live: Mapping[str, Tensor]) -> None:
        for name, tensor in live.items():
            self._host[name].copy_(tensor, non_blocking=True)
