"""The steps of a stage at one of its peers: freeze, meet, step, once for every global batch.

The order of things here: a batch is there, so the own sums are frozen; one of the stage's peers
calls the others; the meeting gives every member the same mean, or nothing to any of them. Then the
step is taken, or the sums are put back. A peer that promised and heard no more asks until it knows,
and takes part in nothing meanwhile. All of it runs in the network's loop; what touches gradients
and weights is awaited and runs in the stage's compute thread.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarmnet.errors import LinkError, PayloadError
from swarmnet.exchange.attend import Minutes, Tools
from swarmnet.exchange.circle import Circle
from swarmnet.exchange.claims import Ids
from swarmnet.exchange.desk import Snapshot
from swarmnet.exchange.driver import ROUND_BITS
from swarmnet.exchange.gather import Aim
from swarmnet.exchange.ledger import Open, Pending
from swarmnet.exchange.pair import End
from swarmnet.exchange.payload import Outgoing
from swarmnet.exchange.questions import TOPIC as ASK_TOPIC
from swarmnet.exchange.questions import Questions
from swarmnet.exchange.subject import Cargo, Vector
from swarmnet.pipeline.assembly import Act, Alone, Assembly, Lead, Resync, View, Wait
from swarmnet.pipeline.past import Commit, Past
from swarmnet.wire.frame import MAX_CLAIMS
from swarmnet.wire.messages import Call, Decline, DeclineReason, Digest, Tally

LOOK_S = 0.5
"""The longest time without a look at who lives."""
ASK_S = 0.5
ROUNDS_UNANSWERED = 4
"""Rounds of questions, once the leader is gone, until a promise is taken back."""
EARLY_S = 0.05
CALLED_S = 5.0
"""So long sums stay frozen for a mate that called before this peer saw the batch whole."""


class Sums(Protocol):
    """Frozen gradient sums with what is in them; nobody changes them while they are out."""

    @property
    def vector(self) -> Vector: ...
    @property
    def tokens(self) -> int: ...
    @property
    def samples(self) -> Collection[int]: ...


class Stage(Protocol):
    """Gradients and weights of this peer. What is awaited runs in its compute thread."""

    @property
    def tokens(self) -> int:
        """In the sums now; those that are frozen aside."""
        ...

    @property
    def samples(self) -> Collection[int]:
        """In the sums now."""
        ...

    async def freeze(self) -> Sums: ...

    async def put_back(self, sums: Sums) -> None:
        """They count again."""
        ...

    async def discard(self, sums: Sums) -> None:
        """They are in a step, or lost."""
        ...

    async def drop(self) -> Collection[int]:
        """Forget the sums of now, and what is about to be added: the samples in them."""
        ...

    async def step(self, mean: Vector, commit: Commit) -> None:
        """Move the weights by the mean gradient per token; from here on ``commit.past`` is theirs.

        The rate is a function of ``commit.past``, so that all peers of the stage stay identical.
        """
        ...

    def lost(self, samples: Ids) -> None:
        """These are not in the sums any more and in no step that is known: to be sent again."""
        ...

    def behind(self, donors: tuple[str, ...]) -> None:
        """A step was missed: fetch the state of one of these, then call ``restored``."""
        ...


class Sight(Protocol):
    """What this peer knows of the others."""

    def view(self) -> View: ...
    def digest(self) -> Digest | None: ...
    def heard(self, peer: str, digest: Digest | None) -> None: ...


@dataclass(frozen=True)
class Company:
    """What a stage peer's stepping stands on."""

    tools: Tools
    sight: Sight
    stage: Stage
    cargo: Cargo
    """How frozen sums travel; its ``layout`` hashes what all peers of a stage have in common."""
    incarnation: int


@dataclass
class _Promise:
    """I said HAVE and heard no more."""

    commit: Commit
    open: Open[Any]
    unanswered: int = 0
    told: list[str] = field(default_factory=list)


class Stepping:
    """Implements ``attend.Host``. ``open`` serves, ``run`` steps until it is cancelled."""

    def __init__(self, company: Company, assembly: Assembly, *, syncing: bool = False) -> None:
        """``syncing``: nothing happens before ``restored``."""
        self.assembly = assembly
        self.syncing = syncing
        self.subject = company.cargo
        self.heard, self.digest = company.sight.heard, company.sight.digest
        self._tools = company.tools
        self._sight = company.sight
        self._stage = company.stage
        self._me = company.tools.transport.me
        self._common = company.cargo.layout
        self._round = company.incarnation << ROUND_BITS
        self._frozen: Sums | None = None
        self._called_until = 0.0
        self._minutes: Minutes | None = None
        self._promise: _Promise | None = None
        self._dropped: set[int] = set()
        self.failed = 0
        """Meetings that came to nothing after sums were sent."""
        self.bytes_sent = 0
        self._settling = False
        self._leading: asyncio.Task[End] | None = None
        self._moved = asyncio.Event()
        self._relabel()
        self.circle = Circle(company.tools, self)
        transport, links = company.tools.transport, company.tools.links
        self._questions = Questions(transport, links, Pending(), self._told_applied)
        self._questions.groups = self.circle.answer

    # ---- for the stage peer -------------------------------------------------------------------

    async def open(self) -> None:
        await self._tools.transport.serve(ASK_TOPIC, self._questions.serve)
        await self.circle.open()

    async def run(self) -> None:
        """Step whenever it is time. Raises what is a bug of ours."""
        try:
            while True:
                await self._proceed()
        finally:
            if self._leading is not None:
                self._leading.cancel()
                with suppress(asyncio.CancelledError):
                    await self._leading

    def hear(self, peer: str, tally: Tally) -> None:
        self.assembly.hear(peer, tally)
        self._moved.set()

    def tally(self) -> Tally | None:
        """My word for the mates: to be told whenever it changed, and now and then."""
        return None if self.syncing else self.assembly.tally(self._tokens)

    def counted(self) -> None:
        """Samples were added to the sums, or the run ends: look at once."""
        self._moved.set()

    def committed(self, sample: int) -> bool:
        """A step of this stage has it: it must not be added to any sum again."""
        return self.assembly.past.counted(sample) is not None

    @property
    def room(self) -> int:
        """Samples that may still come before the next step; a stage peer refuses the others."""
        out = 0 if self._frozen is None else len(self._frozen.samples)
        return MAX_CLAIMS - out - len(self._stage.samples)

    @property
    def settled(self) -> bool:
        """No step is being taken and none is in doubt."""
        return not (self.syncing or self._settling or self._promise or self._minutes)

    def restored(self, past: Past) -> None:
        """The weights are those of ``past`` now, after ``behind`` or at the beginning."""
        self.assembly.restart(past)
        self._relabel()
        self.syncing = False
        self._lose(self._dropped)
        self._dropped = set()
        self._moved.set()

    # ---- the host of meetings -----------------------------------------------------------------

    def welcome(self, peer: str, call: Call) -> Decline | None:
        if self.syncing:
            return self._decline("syncing", LOOK_S)
        if call.layout != self.subject.layout:
            return self._decline("layout", 2 * EARLY_S)  # one of us is about to take a step
        if not self.settled:
            return self._decline("busy", 2 * EARLY_S)
        if self._frozen is None:
            self._called_until = self._tools.clock() + CALLED_S
            self._moved.set()
            return self._decline("early", EARLY_S)
        return None

    def unreachable(self, peer: str) -> None:
        self.assembly.suspect(peer, self._tools.clock())

    def number(self) -> int:
        self._round += 1
        return self._round

    def take(self) -> tuple[Outgoing, int, Ids]:
        if self._frozen is None or not self.settled:
            raise LinkError("no sums are frozen")
        frozen = self._frozen
        outgoing = Outgoing(
            self.subject, Snapshot(self.assembly.past.step, frozen), self._tools.offload
        )
        return outgoing, frozen.tokens, tuple(sorted(frozen.samples))

    def conclude(self, minutes: Minutes) -> None:
        self.bytes_sent += minutes.bytes_sent
        if minutes.snapshot is not None:
            self._minutes = minutes
        self._moved.set()

    # ---- inside -----------------------------------------------------------------------------

    @property
    def _tokens(self) -> int:
        return self._stage.tokens + (0 if self._frozen is None else self._frozen.tokens)

    async def _proceed(self) -> None:
        self._moved.clear()
        if self._leading is not None and self._leading.done():
            leading, self._leading = self._leading, None
            if leading.result() is not End.APPLIED:
                self.assembly.failed(self._tools.clock())
        if self._minutes is not None:
            await self._settle(self._minutes)
        elif self._promise is not None:
            await self._inquire(self._promise)
        elif self.syncing or not self.circle.free or self._leading is not None:
            await self._pause(None)
        else:
            now = self._tools.clock()
            await self._do(self.assembly.look(self._tokens, self._sight.view(), now))

    async def _do(self, act: Act) -> None:
        match act:
            case Wait(until, ripe):
                await self._hold_ready(ripe)
                await self._pause(until)
            case Lead(aim):
                await self._freeze()
                self._leading = asyncio.create_task(self._lead(aim))
                self._leading.add_done_callback(lambda _: self._moved.set())
            case Alone():
                await self._step_alone()
            case Resync(donors):
                await self._give_up(donors)

    async def _lead(self, aim: Aim) -> End:
        if not self.circle.free:
            return End.DECLINED  # somebody's call came while the sums were being frozen
        return await self.circle.lead(aim, "train")

    async def _hold_ready(self, ripe: bool) -> None:
        """Frozen while a call is due, so that whoever calls need not wait for it."""
        if ripe or self._tools.clock() < self._called_until:
            await self._freeze()
        elif self.circle.free:
            await self._thaw()

    async def _freeze(self) -> None:
        """Sums that are spoilt cannot be mended: their samples come again."""
        if self._frozen is not None:
            return
        frozen = await self._stage.freeze()
        samples = set(frozen.samples)
        twice = len(samples) < len(frozen.samples)
        if twice or len(samples) > MAX_CLAIMS or self.assembly.past.spoils(samples):
            await self._stage.discard(frozen)
            self._lose(samples)
            frozen = await self._stage.freeze()
        self._frozen = frozen

    async def _thaw(self) -> None:
        if self._frozen is not None:
            frozen, self._frozen = self._frozen, None
            await self._stage.put_back(frozen)

    async def _settle(self, minutes: Minutes) -> None:
        if minutes.end is End.FAILED or minutes.correction is None:
            self.failed += 1
            await self._thaw()
        else:
            elapsed_s = _elapsed_s(minutes.call.digest)
            by = f"{minutes.leader} {minutes.number}"
            commit = Commit.of(self.assembly.past, minutes.works, minutes.claims, by, elapsed_s)
            if minutes.end is End.APPLIED:
                await self._step(minutes.correction.vector, commit)
            else:
                self._keep_asking(minutes, commit)
        self._minutes = None

    def _keep_asking(self, minutes: Minutes, commit: Commit) -> None:
        assert minutes.correction is not None
        question: Open[Any] = Open(
            peer=minutes.leader,
            round=minutes.number,
            correction=minutes.correction.vector,
            window=0,
            step=self.assembly.past.step,
            witnesses=tuple(p for p in minutes.works if p not in (self._me, minutes.leader)),
        )
        self._promise = _Promise(commit, question)
        self._questions.pending.add(question)

    async def _step_alone(self) -> None:
        self._settling = True
        await self._thaw()  # nobody waits for it: the batch with all that is in it
        await self._freeze()
        frozen = self._frozen
        assert frozen is not None
        if frozen.tokens:
            works = {self._me: frozen.tokens}
            claimed = {self._me: tuple(sorted(frozen.samples))}
            elapsed_s = _elapsed_s(self._sight.digest())
            by = f"{self._me} {self.number()}"
            commit = Commit.of(self.assembly.past, works, claimed, by, elapsed_s)
            try:
                mean = await self._tools.offload(self._own_mean, frozen, works)
            except PayloadError:  # not finite: as useless to me as it would be to others
                self._frozen = None
                await self._stage.discard(frozen)
                self._lose(frozen.samples)
            else:
                await self._step(mean, commit)
        self._settling = False

    def _own_mean(self, frozen: Sums, works: dict[str, int]) -> Vector:
        blend = self.subject.blend(frozen, self._me, works)
        for part in range(self.subject.parts):
            blend.take(part, {})
        return blend.finish().vector

    async def _step(self, mean: Vector, commit: Commit) -> None:
        self._settling = True
        frozen, self._frozen = self._frozen, None
        assert frozen is not None
        past = commit.past
        uncounted = not set(commit.ids).issuperset(frozen.samples)
        self.assembly.advance(commit)
        self._relabel()
        await self._stage.step(mean, commit)
        if uncounted and not past.spoils(frozen.samples):
            await self._stage.put_back(frozen)
        else:
            await self._stage.discard(frozen)
            self._lose(frozen.samples)
        if past.spoils(self._stage.samples):
            self._lose(await self._stage.drop())
        self._settling = False

    def _lose(self, samples: Collection[int]) -> None:
        """Those that no step has are told."""
        lost = tuple(sorted(s for s in samples if not self.committed(s)))
        if lost:
            self._stage.lost(lost)

    async def _give_up(self, donors: tuple[str, ...]) -> None:
        self.syncing = True
        self._promise, self._questions.pending = None, Pending()
        if self._frozen is not None:
            frozen, self._frozen = self._frozen, None
            self._dropped.update(frozen.samples)
            await self._stage.discard(frozen)
        # Whether they are lost is known with the new state: a step that I missed may have them.
        self._dropped.update(await self._stage.drop())
        self._stage.behind(donors)

    # ---- promises -----------------------------------------------------------------------------

    async def _inquire(self, promise: _Promise) -> None:
        """Until somebody knows, or nobody can."""
        mates = self._sight.view().mates
        key = promise.open.peer, promise.open.round
        fate = self.assembly.fate(promise.commit, mates)
        if fate is None:
            gone = {key[0], *promise.open.witnesses} - mates
            await self._questions.ask_all(gone)
            if promise.told:
                fate = "applied"
            elif not len(self._questions.pending):
                fate = "dropped"
            elif key[0] in gone:
                promise.unanswered += 1
                fate = "dropped" if promise.unanswered >= ROUNDS_UNANSWERED else None
        if fate is None:
            await self._pause(self._tools.clock() + ASK_S)
            return
        self._promise, self._questions.pending = None, Pending()
        if fate == "applied":
            self.circle.decisions.commit(*key)
            await self._step(promise.open.correction, promise.commit)
        else:
            self.circle.decisions.drop(*key)
            await self._thaw()

    def _told_applied(self, item: Open[Any], _correction: Any) -> None:
        if self._promise is not None and self._promise.open is item:
            self._promise.told.append(item.peer)

    # ---- small things -------------------------------------------------------------------------

    def _relabel(self) -> None:
        """Who has another past cannot join: its payload would be a gradient elsewhere."""
        place, past = self.assembly.place, self.assembly.past
        said = f"{self._common} {place.stage} {past.step} {past.lineage}"
        self.subject.layout = hashlib.sha256(said.encode()).hexdigest()[:32]

    def _decline(self, reason: DeclineReason, retry_s: float) -> Decline:
        return Decline(reason=reason, retry_s=retry_s, digest=self.digest())

    async def _pause(self, until: float | None) -> None:
        left_s = LOOK_S if until is None else min(LOOK_S, max(0.0, until - self._tools.clock()))
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._moved.wait()


def _elapsed_s(digest: Digest | None) -> float:
    return digest.mine.elapsed_s if digest is not None else 0.0
