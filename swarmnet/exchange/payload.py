"""Payloads on their way: encoded ahead of the sender, reduced behind the receiver.

Encoding runs beside the loop, in one job. So does reducing on an accelerator, one job for all parts
that have landed while the last one ran; in CPU memory a part takes less than handing it over would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from swarmnet.exchange.desk import Snapshot
from swarmnet.exchange.subject import Correction, Intake, Parcel

Offload = Callable[..., Awaitable[Any]]
"""``await offload(fn, *args)``: run heavy work beside the loop (inline in simulation)."""


class Outgoing:
    """My payload of one snapshot; encoding begins at once, before anybody has accepted it."""

    def __init__(self, subject: Parcel, snapshot: Snapshot, offload: Offload) -> None:
        self.snapshot = snapshot
        self.parts = subject.parts
        self._subject = subject
        self._encoded = 0
        self._progress = asyncio.Event()
        self._job: asyncio.Future[Any] | None = None
        if not subject.ready_made:
            loop = asyncio.get_running_loop()
            self._job = asyncio.ensure_future(offload(self._encode_all, loop))
            self._job.add_done_callback(self._ended)

    def serves(self, snapshot: Snapshot) -> bool:
        """It is this snapshot's, and encoding has not ended with an error."""
        job = self._job
        failed = job is not None and job.done() and (job.cancelled() or job.exception() is not None)
        return self.snapshot is snapshot and not failed

    async def part(self, part: int) -> memoryview:
        """The encoded part, as soon as it exists."""
        while self._job is not None and self._encoded <= part:
            if self._job.done():
                self._job.result()
                break
            self._progress.clear()
            await self._progress.wait()
        view: memoryview = self._subject.encode(self.snapshot.vector, part)
        return view

    def _ended(self, job: asyncio.Future[Any]) -> None:
        if not job.cancelled():
            job.exception()  # whoever asks for a part is told; nobody may ask
        self._progress.set()

    def _encode_all(self, loop: asyncio.AbstractEventLoop) -> None:
        for part in range(self.parts):
            self._subject.encode(self.snapshot.vector, part)
            self._encoded = part + 1
            with suppress(RuntimeError):  # the loop is closing: nobody is left to wake
                loop.call_soon_threadsafe(self._progress.set)


class Incoming:
    """A partner's payload: what is whole is reduced while the rest is under way."""

    def __init__(self, intake: Intake, ends: list[int], peer: str, offload: Offload | None) -> None:
        """``ends``: where in the payload each part is over, in bytes.

        Without ``offload`` each part is reduced where it lands.
        """
        self._intake = intake
        self._ends = ends
        self._peer = peer
        self._offload = offload
        self._landed = 0
        self._reduced = 0
        self._view = memoryview(b"")
        self._job: asyncio.Future[Any] | None = None

    def landed(self, payload: bytearray, filled: int) -> None:
        """The first ``filled`` bytes of ``payload`` have arrived."""
        self._view = memoryview(payload)
        while self._landed < len(self._ends) and self._ends[self._landed] <= filled:
            self._landed += 1
        if self._offload is None:
            self._reduce()
        elif self._reduced < self._landed and (self._job is None or self._job.done()):
            self._raise_failure()
            self._job = self._start(self._offload)

    async def finish(self) -> Correction:
        """All has landed: the correction, as soon as it is formed. Raises PayloadError."""
        while self._offload is not None and self._reduced < len(self._ends):
            if self._job is not None:
                await self._job
            if self._reduced < len(self._ends):
                self._job = self._start(self._offload)
        self._raise_failure()
        return self._intake.finish()

    def cancel(self) -> None:
        """The meeting is over without me; a running job ends by itself and changes nothing."""
        if self._job is not None and not self._job.done():
            self._job.cancel()
        self._raise_nothing()

    def _start(self, offload: Offload) -> asyncio.Future[Any]:
        return asyncio.ensure_future(offload(self._reduce))

    def _reduce(self) -> None:
        while self._reduced < self._landed:
            part = self._reduced
            start = self._ends[part - 1] if part else 0
            self._intake.take(part, {self._peer: self._view[start : self._ends[part]]})
            self._reduced = part + 1

    def _raise_failure(self) -> None:
        if self._job is not None and self._job.done():
            self._job.result()

    def _raise_nothing(self) -> None:
        """A failure that nobody will ask for any more must not be reported as forgotten."""
        if self._job is not None and self._job.done() and not self._job.cancelled():
            self._job.exception()
