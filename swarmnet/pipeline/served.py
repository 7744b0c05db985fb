"""One stage as one peer serves it: its samples, its sums and its steps, joined.

The book knows samples, the core knows sums, the stepping knows commits; here they are kept of one
mind. What a sample counts for is said in one place only: ``StageBook.held`` names exactly those
that are in the core's sums, frozen ones included, or on their way there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Protocol

from swarmnet.errors import MessageError
from swarmnet.exchange.attend import Tools
from swarmnet.exchange.claims import Ids
from swarmnet.exchange.subject import Cargo, Vector
from swarmnet.pipeline.assembly import Assembly, View
from swarmnet.pipeline.assembly import Place as StagePlace
from swarmnet.pipeline.past import Commit, Past
from swarmnet.pipeline.record import Place
from swarmnet.pipeline.service import Lane, Limits, StageService
from swarmnet.pipeline.stagebook import StageBook
from swarmnet.pipeline.steplog import Logged, StepLog
from swarmnet.pipeline.stepping import Company, Sight, Sums
from swarmnet.pipeline.steps import Steps
from swarmnet.pipeline.together import Together
from swarmnet.pipeline.works import Works
from swarmnet.wire.messages import Digest, Message, Tally

TELL_S = 0.1
RENEW_S = 1.0
"""A tally that did not change is told again after so long."""
LATELY_S = 3 * RENEW_S
"""Who told its tally within that time is alive."""


class Core(Protocol):
    """Weights and gradient sums, in the compute thread (``train.stage.StageCore`` is one)."""

    @property
    def tokens(self) -> int: ...
    @property
    def samples(self) -> Collection[int]: ...
    @property
    def waiting(self) -> int:
        """Batches whose weight gradient is put off."""
        ...

    def weigh(self) -> Sequence[int]: ...
    def freeze(self, *, whole: bool = True) -> Sums: ...
    def put_back(self, sums: Any) -> None: ...
    def discard(self, sums: Any) -> None: ...
    def drop(self) -> Collection[int]: ...
    def step(self, mean: Any, lr: float) -> None: ...
    def publish(self) -> None: ...


class Watch(Protocol):
    """Who runs this peer: what it decides, and what it wants to know."""

    def lr(self, past: Past) -> float:
        """Of the step that leads to ``past``; the same at all peers that step together."""
        ...

    def stepped(self, commit: Commit, own: int, lr: float, seconds: float) -> None:
        """``own``: samples in it that this peer contributed."""
        ...

    def lost(self, samples: int) -> None: ...

    def behind(self, donors: tuple[str, ...]) -> None:
        """A step was missed: ``follow`` what these did, or ``place`` a state; then ``go_on``."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a served stage stands on."""

    tools: Tools
    sight: Sight
    works: Works
    core: Core
    lane: Lane
    cargo: Cargo
    limits: Limits
    incarnation: int
    at_once: int = 1
    """Waiting microbatches of one shape that are computed as one batch."""
    copy: Callable[[Vector], Vector] = deepcopy
    """Of a mean gradient, in host memory, before a step spends it."""
    free: Callable[[], int] = lambda: 1 << 30
    """Bytes of host memory that nobody uses."""


Maker = Callable[[StagePlace, Setting, "ServedStage"], Steps]


def together(place: StagePlace, setting: Setting, stage: ServedStage) -> Together:
    """Steps with all mates as one."""
    company = Company(setting.tools, stage, stage, setting.cargo, setting.incarnation)
    return Together(company, Assembly(place, Past()), syncing=True)


class ServedStage:
    """Implements ``stepping.Stage``, ``stepping.Sight`` and ``apart.Stage``.

    It serves nothing new before the first ``adopt``.
    """

    def __init__(
        self, place: StagePlace, setting: Setting, watch: Watch, steps: Maker = together
    ) -> None:
        tools = setting.tools
        self.past = Past()
        """Of the weights as they are now: read it in the compute thread, with them."""
        self.log = StepLog(setting.copy, setting.free)
        self._core = setting.core
        self._watch = watch
        self._sight = setting.sight
        self._clock = tools.clock
        self._stage = place.stage
        self._spoke: dict[str, float] = {}
        own = Place(place.me, place.stage, place.stages, max_batch=setting.at_once)
        self.book = StageBook(own, self._committed)
        self.book.behind = True
        self.service = StageService(
            tools.transport, self.book, setting.works, setting.lane, setting.limits
        )
        self.stepping = steps(place, setting, self)
        self.service.extra = self._hear
        self.service.counted = self.stepping.counted
        self.service.between = self.stepping.between

    async def open(self) -> None:
        await self.service.open()
        await self.stepping.open()

    async def close(self) -> None:
        await self.service.post.close()

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What runs while this stage is served."""
        return [self.service.run(), self.stepping.run(), self._tell()]

    @property
    def empty(self) -> bool:
        """Nothing is held that no step has, and none is being taken."""
        return not self.book.held and self.stepping.settled

    # ---- states -------------------------------------------------------------------------------

    async def adopt(self, past: Past, load: Callable[[], None] | None = None) -> None:
        """Go on from ``past``, whose weights ``load`` puts in place. Sums do not outlive it.

        What ``load`` raises is raised; then the weights are those of before.
        """
        await self.place(past, load)
        await self.go_on()

    async def place(self, past: Past, load: Callable[[], None] | None = None) -> None:
        """The first half of ``adopt``: the state is there, and nothing is done with it yet."""

        def swap() -> None:
            if load is not None:
                load()
            self._core.drop()
            self.log.clear()
            self.past = past

        await self.service.exclusively(swap)

    async def follow(self, logged: Logged) -> None:
        """Between the halves: take a step that mates took meanwhile.

        Raises:
            PayloadError: it is not the one after the last; nothing is changed.
        """
        past = logged.after(self.past)
        lr = self._watch.lr(past)

        def move() -> None:
            self._core.drop()
            self._core.step(logged.mean, lr)
            self.past = past

        await self.service.exclusively(move)

    async def stay(self) -> None:
        """Nobody is left who was ahead: what is here is the best that is left of the stage."""
        await self.adopt(self.past)

    async def go_on(self) -> None:
        """The second half of ``adopt``: samples that were under way count here no more."""
        await self.service.exclusively(self._core.drop)
        past = self.past
        self.book.steps[self._stage] = past.step
        self.stepping.restored(past)
        # Whatever came into the sums while the state was fetched went with them.
        held = tuple(self.book.held)
        committed = [sample for sample in held if self._committed(sample)]
        self.service.perform(self.book.commit(committed, past.step))
        if lost := tuple(self.book.held):
            self.lost(lost)
        self.book.behind = False

    # ---- what stepping asks for (Stage) ---------------------------------------------------------

    @property
    def tokens(self) -> int:
        return self._core.tokens

    @property
    def samples(self) -> Collection[int]:
        return self._core.samples

    async def freeze(self) -> Sums:
        def freeze() -> tuple[list[int], Sums]:
            weighed: list[int] = []
            while self._core.waiting:
                weighed += self._core.weigh()
            return weighed, self._core.freeze()

        sums: Sums
        weighed, sums = await self.service.exclusively(freeze)
        self.service.perform(self.book.weighed(weighed))
        return sums

    async def put_back(self, sums: Sums) -> None:
        await self.service.exclusively(lambda: self._core.put_back(sums))

    async def discard(self, sums: Sums) -> None:
        await self.service.exclusively(lambda: self._core.discard(sums))

    async def drop(self) -> Collection[int]:
        dropped: Collection[int] = await self.service.exclusively(self._core.drop)
        return dropped

    async def step(self, mean: Vector, commit: Commit) -> None:
        began = self._clock()
        lr = self._watch.lr(commit.past)

        def move() -> None:
            self.stepping.boundary()
            self.log.note(commit, mean)
            self._core.step(mean, lr)
            self.past = commit.past

        await self.service.exclusively(move)
        # Not what is held of it: a sample that was sent again is held here and in a mate's share.
        own = commit.shares.get(self.book.place.me, 0)
        self.book.steps[self._stage] = commit.past.step
        self.service.perform(self.book.commit(commit.ids, commit.past.step))
        self._watch.stepped(commit, own, lr, self._clock() - began)

    @property
    def complete(self) -> bool:
        return len(self.book.held) == len(self._core.samples)

    async def take(self) -> Sums:
        sums: Sums = await self.service.exclusively(lambda: self._core.freeze(whole=False))
        return sums

    async def visit(self, look_in: Callable[[], bool]) -> None:
        def look() -> None:
            if look_in():
                self._core.publish()

        await self.service.exclusively(look)

    def lost(self, samples: Ids) -> None:
        self.service.perform(self.book.void(samples, self.stepping.past.step))
        self._watch.lost(len(samples))

    def behind(self, donors: tuple[str, ...]) -> None:
        self.book.behind = True
        self._watch.behind(donors)

    # ---- what stepping asks for (Sight) -------------------------------------------------------

    def view(self) -> View:
        """A mate's own word comes long before the phone book knows that it serves this stage.

        Without it a stage would step past a newcomer that has begun to count.
        """
        view, late = self._sight.view(), self._clock() - LATELY_S
        self._spoke = {peer: at for peer, at in self._spoke.items() if at >= late}
        return replace(view, mates=view.mates | self._spoke.keys())

    def digest(self) -> Digest | None:
        return self._sight.digest()

    def heard(self, peer: str, digest: Digest | None) -> None:
        self._sight.heard(peer, digest)

    # ---- inside -----------------------------------------------------------------------------

    def _committed(self, sample: int) -> bool:
        return self.stepping.committed(sample)

    def _hear(self, peer: str, letter: Message) -> None:
        if not isinstance(letter, Tally):
            raise MessageError(f"{letter.kind.name} is for nobody here")
        self._spoke.pop(peer, None)
        if letter.stage == self._stage:
            self._spoke[peer] = self._clock()
        self.stepping.hear(peer, letter)

    async def _tell(self) -> None:
        """My tally to my mates whenever it changed, and now and then."""
        told: Tally | None = None
        told_at = 0.0
        while True:
            tally, now = self.stepping.tally(), self._clock()
            if tally is not None and (tally != told or now > told_at + RENEW_S):
                told, told_at = tally, now
                for mate in self.view().mates:
                    self.service.post.send(mate, tally)
            await asyncio.sleep(TELL_S)
