"""One state from several donors at once: the shell around ``net/fetching.py``.

One task per donor talks over one stream; the decisions are all in one place, and so are the bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swarmnet.errors import DonorBusy, LinkError, PayloadError, PeerFault, UnreachableError
from swarmnet.events import DonorLeft, Event, StateAwaited
from swarmnet.exchange.transport import Transport
from swarmnet.net.fetching import Fetching
from swarmnet.net.transfer import Limits, Source
from swarmnet.wire.messages import Get

AT_ONCE = 4
"""Donors asked at the same time."""
TICK_S = 0.1
SAY_S = 1.0
OPEN_S = 20.0
ANSWER_S = 80.0
"""A donor that trains copies its state between two steps: the longest step that is waited for."""


class Draft(Protocol):
    """What is being filled: chunks of known sizes, some of which may hold something already."""

    chunks: int
    nbytes: int

    def size(self, chunk: int) -> int: ...

    def hashes(self, first: int, last: int) -> list[bytes]: ...

    def place(self, chunk: int, body: memoryview) -> None:
        """Raises PayloadError, and writes nothing, when the bytes cannot be."""
        ...


class Stash(Protocol):
    """Where chunks are kept for the case that this process ends before the last has come."""

    @property
    def had(self) -> Mapping[int, str]:
        """Chunks that an earlier life left in the draft, and who brought them."""
        ...

    def came(self, chunk: int, donor: str, body: memoryview) -> None: ...

    def void(self, donor: str) -> None: ...


class _NoStash:
    """Keeps nothing."""

    had: Mapping[int, str] = {}

    def came(self, chunk: int, donor: str, body: memoryview) -> None:
        return

    def void(self, donor: str) -> None:
        return


NO_STASH = _NoStash()


@dataclass(frozen=True)
class Errand:
    """What is asked of whom.

    ``donors`` tells whom to ask now, best first; ``version`` reads a manifest's description and
    raises PayloadError when it does not fit; ``alike``: only chunks of one version count.
    ``patience_s``: how long no chunk may come before it is given up; without ``waits`` it is given
    up at once when there is nobody to ask.
    """

    topic: str
    get: Get
    donors: Callable[[], Sequence[str]]
    version: Callable[[Mapping[str, Any]], int]
    patience_s: float
    alike: bool = False
    waits: bool = True


@dataclass(frozen=True)
class Fetched:
    """``describes`` is the lead donor's word; ``donors`` brought chunks, the lead first."""

    describes: Mapping[str, Any]
    donors: tuple[str, ...]
    nbytes: int
    """What had to be sent; the rest was there before."""


class Download:
    """Fills a draft. One use."""

    def __init__(
        self, transport: Transport, draft: Draft, errand: Errand, emit: Callable[[Event], None]
    ) -> None:
        self._transport = transport
        self._draft = draft
        self._errand = errand
        self._emit = emit
        self._described: dict[str, Mapping[str, Any]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._problem = "nobody has a state to give"
        self._began = self._said_at = time.monotonic()
        self._received = 0
        self._fetching: Fetching
        self._stash: Stash

    async def run(self, held: Sequence[bytes], stash: Stash = NO_STASH) -> Fetched:
        """``held``: the draft's own hashes by chunk, empty ones where it holds nothing of use.

        Raises:
            UnreachableError: no chunk came for as long as ``patience_s``.
        """
        alike = self._errand.alike
        fetching = Fetching(held, time.monotonic(), alike=alike, had=stash.had)
        self._fetching, self._stash = fetching, stash
        try:
            while not fetching.done:
                self._recruit()
                self._report()
                if self._hopeless():
                    raise UnreachableError(f"nobody gives a sound state: {self._problem}")
                await self._pause()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        lead = fetching.lead
        others = tuple(sorted(d for d in fetching.brought if d != lead))
        return Fetched(self._described[lead], (lead, *others), self._received)

    # ---- who is asked -------------------------------------------------------------------------

    def _recruit(self) -> None:
        now = time.monotonic()
        for donor in [d for d, task in self._tasks.items() if task.done()]:
            self._tasks.pop(donor).result()
        for donor in self._errand.donors():
            if len(self._tasks) >= AT_ONCE:
                return
            if donor not in self._tasks and self._fetching.may_ask(donor, now):
                self._tasks[donor] = asyncio.create_task(self._talk(donor))

    def _hopeless(self) -> bool:
        errand = self._errand
        if not (errand.waits or self._tasks):
            return all(donor in self._fetching.banned for donor in errand.donors())
        return time.monotonic() - self._fetching.progress_at > errand.patience_s

    async def _pause(self) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(TICK_S):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _talk(self, donor: str) -> None:
        """One donor's part, and how it ended."""
        fetching = self._fetching
        try:
            await self._fetch_from(donor)
        except DonorBusy as error:
            self._problem = str(error)
            fetching.rest(donor, error.retry_s, time.monotonic())
        except LinkError as error:
            self._left(donor, str(error), banned=False)
            fetching.lost(donor, time.monotonic())
        except PeerFault as error:
            self._left(donor, str(error), banned=True)
            fetching.ban(donor, str(error))
            await asyncio.to_thread(self._stash.void, donor)
        finally:
            self._changed.set()

    async def _fetch_from(self, donor: str) -> None:
        fetching, errand = self._fetching, self._errand
        stream = await self._transport.open(donor, errand.topic, OPEN_S)
        try:
            limits = Limits(self._draft.nbytes, ANSWER_S)
            source = await Source.open(stream, errand.get, limits)
            version = self._inspect(source)
            if fetching.offered(donor, source.hashes, version, time.monotonic()):
                self._described[donor] = source.describes
                await self._take_from(donor, source)
        finally:
            await stream.close()

    def _inspect(self, source: Source) -> int:
        """The version behind a manifest. Raises PeerFault when it is of another state."""
        if (len(source.hashes), source.nbytes) != (self._draft.chunks, self._draft.nbytes):
            raise PayloadError("a state of another size than this model's")
        return self._errand.version(source.describes)

    async def _take_from(self, donor: str, source: Source) -> None:
        """Chunk after chunk; one is checked and put in its place while the next one comes."""
        fetching = self._fetching
        landing: asyncio.Task[None] | None = None
        try:
            while not fetching.done:
                deadline_s = fetching.deadline_s(donor)
                if wanted := fetching.next(donor, time.monotonic()):
                    await source.want(wanted, deadline_s)
                if source.wanted:
                    size = self._draft.size(source.wanted[0])
                    chunk, body = await source.receive(size, deadline_s)
                    self._received += len(body)
                    before, landing = landing, None
                    if fetching.claim(donor, chunk, time.monotonic()):
                        landing = asyncio.create_task(self._land(donor, source, chunk, body))
                    if before is not None:
                        await before
                elif landing is not None:
                    await landing
                    landing = None
                else:
                    await asyncio.sleep(TICK_S)  # others bring the rest, or may be lost yet
        finally:
            if landing is not None:
                await asyncio.gather(landing, return_exceptions=True)

    async def _land(self, donor: str, source: Source, chunk: int, body: memoryview) -> None:
        """Raises PayloadError; then nothing was written."""

        def check_and_place() -> None:
            source.check(chunk, body)
            self._draft.place(chunk, body)
            self._stash.came(chunk, donor, body)

        await asyncio.to_thread(check_and_place)
        self._fetching.placed(donor, chunk, time.monotonic())
        if self._fetching.done:
            self._changed.set()

    # ---- what is said -------------------------------------------------------------------------

    def _left(self, donor: str, reason: str, *, banned: bool) -> None:
        self._problem = reason
        self._emit(DonorLeft(donor=donor, reason=reason, banned=banned))

    def _report(self) -> None:
        """Now and then, so that who waits for this process sees it move, or why it does not."""
        now = time.monotonic()
        if now - self._said_at < SAY_S:
            return
        self._said_at = now
        self._emit(
            StateAwaited(
                chunks=self._draft.chunks,
                left=self._fetching.left,
                donors=len(self._fetching.giving),
                seconds=now - self._began,
                reason="" if self._fetching.giving else self._problem,
            )
        )


async def hash_draft(draft: Draft) -> list[bytes]:
    """What a draft holds, hashed beside the loop."""
    return await asyncio.to_thread(draft.hashes, 0, draft.chunks)
