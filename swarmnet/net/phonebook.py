"""Who is in the run, kept current: our status goes into the DHT, everybody's comes out of it.

Reads feed ``Membership``, which alone decides who is alive. We write at every renewal, which costs
the same in any swarm; a read costs the records of all peers, so whoever trains, and hears of the
others at every meeting, reads when its ``Lookout`` says so. Beside the statuses there is one
record of orders; only those signed by the run's owner count.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from swarmnet.errors import LinkError
from swarmnet.events import Event, PeerSeen, ViewSeen
from swarmnet.exchange.lookout import Lookout
from swarmnet.exchange.membership import Membership, Status
from swarmnet.wire.messages import Count, Word

Order = Literal["run", "pause", "end"]
PEERS, CONTROL = "peers", "control"
_LOOK_ALONE_S = 1.0
"""While nobody else is known we look this often, so that a swarm that starts finds itself."""
_LEAVE_S = 2.0
_ORDER_RENEWALS = 2
"""Orders are looked for this often also while the book of peers stays shut."""
_REPORT_S = 30.0
MAX_ADDRESSES = 4
Address = Annotated[str, StringConstraints(max_length=200)]
EntryT = TypeVar("EntryT", bound=BaseModel)
log = logging.getLogger(__name__)


class Records(Protocol):
    """What the phone book needs of a ``Node``."""

    @property
    def me(self) -> str: ...
    @property
    def addresses(self) -> list[str]: ...
    @property
    def relaying(self) -> bool: ...
    def learn(self, peer: str, addresses: list[str], *, relays: bool) -> None: ...
    def forget(self, peer: str) -> None: ...
    async def publish(self, key: str, body: dict[str, Any]) -> None: ...
    async def lookup(self, key: str) -> dict[str, dict[str, Any]]: ...


class _StatusEntry(Word):
    """A peer's own word, where it listens, and whether it relays, as strangers may write it."""

    addresses: Annotated[list[Address], Field(max_length=MAX_ADDRESSES, default_factory=list)]
    relays: bool = False


class _OrderEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    order: Order
    issued_ms: Count


@dataclass(frozen=True)
class PhonebookOptions:
    """How often the book turns over, and whose orders count (a peer id).

    ``clock`` is that of the ``Membership``; the ``wall`` clock only numbers lives and orders.
    """

    renew_s: float
    owner: str
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Phonebook:
    """One peer's copy of the book. Made and used in the network's loop, except ``nudge``.

    ``status`` is called at every renewal; its incarnation and counter are filled in here.
    ``on_order`` and ``on_event`` are called in the loop and must not block.
    """

    def __init__(
        self,
        node: Records,
        membership: Membership,
        status: Callable[[], Status],
        options: PhonebookOptions,
    ) -> None:
        self.order: Order = "run"
        self.on_order: Callable[[Order], None] = lambda _: None
        self.on_event: Callable[[Event], None] = lambda _: None
        self._node = node
        self._membership = membership
        self._status = status
        self._options = options
        self._clock = options.clock
        self._loop = asyncio.get_running_loop()
        self._lookout = Lookout(membership)
        self._incarnation = int(options.wall())
        self._began = self._clock()
        self._counter = 0
        self._issued_ms = 0
        self._orders_read = float("-inf")
        self._seen: set[str] = set()
        self._reported = self._clock()
        self._nudged = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the book once, then enter ourselves and keep both up until ``leave``.

        A node of the DHT that hangs costs each look seconds, so there are few, side by side.
        """
        await asyncio.gather(self._read_peers(), self._read_order())
        self._nudged.set()
        self._task = self._loop.create_task(self._keep())

    @property
    def reads(self) -> int:
        """How often the records of all peers were read."""
        return self._lookout.reads

    def mine(self) -> Status:
        """Our own word now, newer than every word before: for a record or a digest."""
        self._counter = max(self._counter + 1, int(1000 * (self._clock() - self._began)))
        return dataclasses.replace(
            self._status(), incarnation=self._incarnation, counter=self._counter
        )

    def nudge(self) -> None:
        """Our state changed: publish and read now. Safe from any thread."""
        self._loop.call_soon_threadsafe(self._nudged.set)

    async def command(self, order: Order) -> None:
        """Give an order to the whole run. PermissionError unless this node is the owner's."""
        if self._node.me != self._options.owner:
            raise PermissionError("only the run's owner gives orders")
        self._take_order(_OrderEntry(order=order, issued_ms=self._next_issue()))
        await self._publish_order()

    async def leave(self) -> None:
        """Stop, and tell the others that we left; bounded, also with nobody there to hear it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._publish(state="left")
        except TimeoutError:
            log.debug("nobody took our farewell in time")

    async def _keep(self) -> None:
        due = self._loop.time() + self._options.renew_s
        while True:
            nudged = await self._wait(due)
            try:
                if nudged or self._loop.time() >= due:
                    due = self._loop.time() + self._options.renew_s
                    await self._publish()
                    await self._publish_order()
                await self._look(nudged)
            except Exception:
                log.exception("the phone book could not be renewed: a bug of ours")

    async def _wait(self, due: float) -> bool:
        """Until nudged, due, or (while alone) time for another look; whether nudged."""
        left = due - self._loop.time()
        if not self._seen:
            left = min(left, _LOOK_ALONE_S)
        try:
            async with asyncio.timeout(max(left, 0.01)):
                await self._nudged.wait()
        except TimeoutError:
            return False
        self._nudged.clear()
        return True

    async def _look(self, nudged: bool) -> None:
        """Read what may have changed. Only meetings in training bring digests often enough."""
        now = self._clock()
        eager = nudged or not self._seen or self._status().state != "training"
        if eager or self._lookout.due(now):
            await self._read_peers()
        # Timers are a little late or early: half a renewal keeps the rhythm.
        if eager or now - self._orders_read > (_ORDER_RENEWALS - 0.5) * self._options.renew_s:
            await self._read_order()
        self._report(self._clock())

    async def _publish(self, **changes: str) -> None:
        status = dataclasses.replace(self.mine(), **changes)  # type: ignore[arg-type]
        try:
            body = dataclasses.asdict(status)
            body["addresses"] = self._node.addresses[:MAX_ADDRESSES]
            if self._node.relaying:
                body["relays"] = True
            await self._node.publish(PEERS, body)
        except LinkError as error:
            log.debug("our status was not published: %s", error)

    async def _publish_order(self) -> None:
        if self._node.me == self._options.owner and self._issued_ms:
            entry = _OrderEntry(order=self.order, issued_ms=self._issued_ms)
            try:
                await self._node.publish(CONTROL, entry.model_dump())
            except LinkError as error:
                log.debug("the order was not published: %s", error)

    async def _read_peers(self) -> None:
        now = self._clock()
        book = await self._lookup(PEERS)
        for peer, body in book.items():
            entry = _parse(_StatusEntry, body)
            if entry is not None and peer != self._node.me:
                if entry.state == "left":
                    self._node.forget(peer)
                else:
                    self._node.learn(peer, entry.addresses, relays=entry.relays)
                status = Status(**entry.model_dump(exclude={"addresses", "relays"}))
                self._membership.observe(peer, status, now)
        if book:
            self._lookout.read(now)
        self._outlive(book.get(self._node.me))
        self._report(self._clock())

    async def _read_order(self) -> None:
        self._orders_read = self._clock()
        said = (await self._lookup(CONTROL)).get(self._options.owner)
        if said is not None and (order := _parse(_OrderEntry, said)) is not None:
            self._take_order(order)

    def _outlive(self, mine: dict[str, Any] | None) -> None:
        """An earlier life's record is newer than ours when the clock was set back between them.

        Found at the start or, if the book could not be read then, whenever it can.
        """
        if mine is None or (last := _parse(_StatusEntry, mine)) is None:
            return
        if (last.incarnation, last.counter) > (self._incarnation, self._counter):
            self._incarnation = last.incarnation + 1

    async def _lookup(self, key: str) -> dict[str, dict[str, Any]]:
        try:
            return await self._node.lookup(key)
        except LinkError as error:
            log.debug("record %s was not read: %s", key, error)
            return {}

    def _report(self, now: float) -> None:
        alive = set(self._membership.alive(now, suspects=True))
        for peer in sorted(alive ^ self._seen):
            self.on_event(PeerSeen(peer_id=peer, alive=peer in alive))
        self._seen = alive
        if now - self._reported >= _REPORT_S and (ages := self._membership.ages(now)):
            self._reported = now
            middle = statistics.median(ages)
            self.on_event(ViewSeen(len(ages), middle, ages[-1], self._lookout.reads))

    def _next_issue(self) -> int:
        return max(int(self._options.wall() * 1000), self._issued_ms + 1)

    def _take_order(self, entry: _OrderEntry) -> None:
        """An order older than the last one is a replica that lags behind."""
        if entry.issued_ms <= self._issued_ms:
            return
        self._issued_ms = entry.issued_ms
        if entry.order != self.order:
            self.order = entry.order
            self.on_order(entry.order)


def _parse(cls: type[EntryT], body: dict[str, Any]) -> EntryT | None:
    try:
        return cls.model_validate(body)
    except ValidationError as error:
        log.debug("a signed record of the wrong shape: %s", error)
        return None
