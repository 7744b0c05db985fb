"""A peer's own state on its disk: when it is written, beside what, and what is there at a start."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.portrait import Portrait
from swarmnet.config import PeerConfig
from swarmnet.errors import PayloadError, StorageError
from swarmnet.events import CheckpointPassedOver, CheckpointWritten
from swarmnet.train import checkpoint
from swarmnet.train.ring import Ring

FOLDER = "checkpoint"
FIRST_S = 10.0
"""The first one comes early: whoever has trained at all should have something on its disk."""
SHARE = 0.5
"""Of one core, while training goes on. It has until the next one is due."""
_log = logging.getLogger(__name__)

Emit = Callable[[CheckpointWritten | CheckpointPassedOver], None]


class Keeper:
    """Checkpoints of one peer, written beside training by one thread at a time.

    Made, asked and told to write in one thread, the one that may copy the state.
    """

    def __init__(self, out: Path, fingerprint: str, peer: PeerConfig, emit: Emit) -> None:
        self._folder = out / FOLDER
        self._ring = Ring(peer.checkpoints, peer.hourly, {"fingerprint": fingerprint})
        self._every_s = peer.checkpoint_s
        self._emit = emit
        self._writer: threading.Thread | None = None
        self._hurry = threading.Event()
        self._due = time.monotonic() + self._every_s

    def read(self, check: Callable[[Portrait], None], **expect: Any) -> Portrait | None:
        """The newest whole checkpoint of this run that ``check`` takes, if there is one.

        Args:
            check: raises PayloadError for a state that does not fit.
            expect: further facts that it must hold, such as the stage.
        """
        foreign: list[Path] = []

        def passed(path: Path, error: Exception) -> None:
            self._emit(CheckpointPassedOver(path.name, str(error)))
            if isinstance(error, checkpoint.ForeignError):
                foreign.append(path)
            else:
                _log.warning("checkpoint %s is passed over: %s", path, error)

        found = None
        wanted = {**self._ring.owner, **expect}
        for tensors, facts in checkpoint.whole(self._folder, wanted, passed):
            found = Portrait(tensors, facts)
            try:
                check(found)
            except PayloadError as error:
                passed(self._folder / f"step {facts['step']}", error)
                found = None
            else:
                break
        if foreign:
            _log.warning(
                "%s holds what another run, stage or version left (%s): passed over, not deleted",
                self._folder,
                foreign[0].name if len(foreign) == 1 else f"{len(foreign)} checkpoints",
            )
        return found

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._due

    @property
    def busy(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def begin(self) -> None:
        """Training begins now."""
        self._due = time.monotonic() + min(FIRST_S, self._every_s)

    def write(self, take: Callable[[], Portrait], *, wait: bool) -> None:
        """Copy the state with ``take``, and write while training goes on.

        A writer that is still at work is waited for first: one copy of the state has its place.
        A refusing disk is an event, not an end.
        """
        self._hurry.set()
        if self._writer is not None:
            self._writer.join()
        if not wait:
            self._hurry.clear()
        began = time.monotonic()
        self._due = began + self._every_s
        portrait = take()
        copied = time.monotonic()
        self._writer = threading.Thread(
            target=self._write,
            args=(portrait, copied - began, copied),
            name="swarmnet-checkpoint",
            daemon=True,
        )
        self._writer.start()
        if wait:
            self._writer.join()

    def _write(self, portrait: Portrait, copy_s: float, began: float) -> None:
        written, problem, facts = checkpoint.Written(0), "", portrait.facts
        try:
            portrait.finish()
            written = checkpoint.write(
                self._folder, portrait.tensors, facts, self._ring, self._rest
            )
        except StorageError as error:
            problem = str(error)
        seconds = time.monotonic() - began
        self._emit(
            CheckpointWritten(
                step=int(facts["step"]),
                seconds=seconds,
                bytes=written.bytes,
                error=problem,
                copy_s=copy_s,
                dropped=written.dropped,
            )
        )

    def _rest(self, worked_s: float) -> None:
        """Training has the cores; a peer that leaves does not."""
        self._hurry.wait(worked_s * (1 / SHARE - 1))
