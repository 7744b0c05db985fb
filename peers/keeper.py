"""A peer's own state on its disk: when it is written, beside what, and what is there at a start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peers.portrait import Portrait
from swarmnet.errors import StorageError
from swarmnet.events import CheckpointWritten
from swarmnet.train import checkpoint

FOLDER = "checkpoint"


class Keeper:
    """Checkpoints of one peer, written beside training by one thread at a time."""

    def __init__(
        self, out: Path, fingerprint: str, every_s: float, emit: Callable[[CheckpointWritten], None]
    ) -> None:
        self._folder = out / FOLDER
        self._fingerprint = fingerprint
        self._every_s = every_s
        self._emit = emit
        self._writer: threading.Thread | None = None
        self._due = time.monotonic() + every_s

    def read(self) -> Portrait | None:
        """The newest whole checkpoint of this run, if there is one."""
        kept = checkpoint.read(self._folder, {"fingerprint": self._fingerprint})
        return Portrait(*kept) if kept else None

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._due

    @property
    def busy(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def restart(self) -> None:
        """The time until the next checkpoint begins now."""
        self._due = time.monotonic() + self._every_s

    def write(self, portrait: Portrait, facts: Mapping[str, Any], *, wait: bool) -> None:
        """Write while training goes on; a refusing disk is an event, not an end."""
        self.restart()
        if self._writer is not None:
            self._writer.join()
        work = (portrait, dict(facts), time.monotonic())
        self._writer = threading.Thread(
            target=self._write, args=work, name="swarmnet-checkpoint", daemon=True
        )
        self._writer.start()
        if wait:
            self._writer.join()

    def _write(self, portrait: Portrait, facts: Mapping[str, Any], began: float) -> None:
        size, problem = 0, ""
        try:
            size = checkpoint.write(self._folder, portrait.tensors, facts)
        except StorageError as error:
            problem = str(error)
        seconds = time.monotonic() - began
        self._emit(CheckpointWritten(int(facts["step"]), seconds, size, problem))
