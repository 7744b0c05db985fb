"""A stage peer: serves one stage of the model, sums its gradients, steps with its mates.

Life of a stage peer: syncing -> training (-> syncing at another stage -> training) -> consensus,
while the last samples become part of a step -> serving -> left. All of the network happens in the
network thread, all computing in one thread of its own; the main thread waits.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from peers.give import Giver, Terms
from peers.keeper import Keeper
from peers.leaving import told
from peers.link import Link, Newcomer
from peers.mover import Mover
from peers.portrait import Easel, Portrait
from peers.stagedonors import Found, StageDonors
from peers.stageside import StageSide
from peers.station import LAST_S, Station, until
from swarmnet.config import RunFile
from swarmnet.errors import (
    ConfigError,
    PayloadError,
    StopRequested,
    UnreachableError,
)
from swarmnet.events import FINISHED, PeerFinished, PeerStarted, StageTaken, StateTaken
from swarmnet.exchange.membership import Status
from swarmnet.pipeline.past import Past
from swarmnet.pipeline.placement import Serving
from swarmnet.pipeline.steplog import Logged
from swarmnet.train.loop import choose_device
from swarmnet.wire.invite import Invite

POLL_S = 0.05
ASK_AGAIN_S = 1.0
LOOK_AROUND_S = 20.0
FLUSH_S = 30.0
FRESH_S = 0.2
"""A stage steps often, and a joiner has all steps since the copy to follow."""
FOLLOW_S = 60.0
"""So long after a copy of the state was made, or given, the steps since are kept."""
NOTHING = Found()
FOR_OTHERS = 0.8
"""Share of the time for leaving that does not belong to the own checkpoint."""


class StagePeer:
    """One stage peer's process. ``run`` returns the process's exit code."""

    def __init__(
        self,
        station: Station,
        invite: Invite,
        given: bytes | None = None,
        stage: int | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        """``stage`` None: where the swarm needs it most.

        ``thread``: where a machine that serves several stages computes all of them, one at a time;
        its peers stay where they are.
        """
        self.station = station
        self._stays = thread is not None
        self.state = "syncing"
        self._invite = invite
        self._given = given
        self._wanted = stage
        self._stage = 0
        self._settled_at = time.monotonic()
        self._steps = 0
        self._bytes = 0
        self._began = time.monotonic()
        self._easel = Easel()
        self._thread = thread or ThreadPoolExecutor(1, "swarmnet-compute")
        self._side: StageSide | None = None
        self._joined = False
        self._finished = False
        self._serving_now = False
        """Told to leave, this peer ends what it serves in good order."""
        self.run_file: RunFile
        self._keeper: Keeper
        self.link: Link

    def run(self) -> int:
        """Serve until the run is over and its result was given long enough."""
        station = self.station
        newcomer = Newcomer(station, self._invite, self._given)
        self.link = newcomer.enter(self._status, self._check_run)
        try:
            station.run(self._live(), winds_down=lambda: self._serving_now)
            if not self._finished:
                self._log_finished(f"left: {station.stop.reason}")
                return StopRequested.exit_code
        except StopRequested:
            if not self._finished:
                self._log_finished(f"left: {station.stop.reason}")
                return StopRequested.exit_code
        finally:
            station.net.run(self.link.leave())
            if not self._stays:
                self._thread.shutdown(wait=False, cancel_futures=True)
        return 0

    # ---- life ---------------------------------------------------------------------------------

    async def _live(self) -> None:
        self._joined = True
        self._giver = Giver(
            self.run_file.raw,
            self._easel,
            lambda: self.state,
            Terms.of(self.station.peer, FRESH_S),
            self.station.log.emit,
        )
        self._giver.steps.logged = self._logged
        await self.link.give(self._giver.handle)
        alike = self.run_file.config.pipeline.step == "together"
        self._donors = StageDonors(self.station, self.link, alike=alike)
        self._mover = Mover(self.link, self.run_file.config, self.station.seed)
        target: int | None = await self._first_stage()
        left = -1
        while target is not None:
            self._stage = target
            self.link.phonebook.nudge()
            began = time.monotonic()
            side = self._side = await self._build(target)
            try:
                size = await self._take_state(side, moved=left >= 0)
                self._announce(side, left, time.monotonic() - began, size)
                left, target = target, await self._serve(side)
            finally:
                self._steps += side.steps
                self._bytes += side.bytes_sent
                self._side = None
                await side.served.close()

    async def _serve(self, side: StageSide) -> int | None:
        """Until the run is over (None) or this peer moves (where to)."""
        self._settled_at = time.monotonic()
        self._change_state("training")
        works = [self.link.node.wait_failed(), self._keep(side), *side.tasks()]
        running = [asyncio.create_task(work) for work in works]
        end = asyncio.create_task(self._until_over(side))
        self._serving_now = True
        try:
            await asyncio.wait([*running, end], return_when=asyncio.FIRST_COMPLETED)
            for task in (*running, end):
                if task.done():
                    task.result()
            return end.result()
        finally:
            self._serving_now = False
            for task in (*running, end):
                task.cancel()
            await asyncio.gather(*running, end, return_exceptions=True)

    async def _until_over(self, side: StageSide) -> int | None:
        while not self._over():
            if self.station.stop:
                await self._leave(side)
                return None
            # A peer that rests takes nothing new; what it holds becomes part of its mates' steps.
            # By the owner's order trainers rest, and the stages with them.
            rests = side.served.book.closed = bool(self.station.pause)
            target = None if self._stays or rests else await self._mover.look(self._serving(side))
            if target is not None:
                await self._leave_stage(side)
                return target
            await asyncio.sleep(POLL_S)
        deadline = time.monotonic() + FLUSH_S
        side.served.book.closed = False
        self._change_state("consensus")
        await until(lambda: self._flushed(side) or bool(self.station.stop), deadline)
        if self.station.stop:
            await self._leave(side)
            return None
        self._serving_now = False
        await side.served.stepping.finish()
        self._change_state("serving")
        await self._write_checkpoint(side, wait=True)
        self._log_finished(FINISHED)
        await self._give(side)
        return None

    async def _leave_stage(self, side: StageSide) -> None:
        """Take nothing new, and let what is held become part of a step, for a while."""
        side.served.book.closed = True
        side.served.stepping.leave()
        deadline = time.monotonic() + FLUSH_S
        await until(lambda: side.served.empty, deadline)
        self._change_state("syncing")

    async def _leave(self, side: StageSide) -> None:
        """As from a stage, for good: what no step takes in time its trainers send again at once."""
        began, left_s = time.monotonic(), FOR_OTHERS * (self.station.left_s() - LAST_S)
        side.served.book.closed = True
        side.served.stepping.leave()
        await until(lambda: side.served.empty, began + left_s / 2)
        said = await side.served.stepping.bequeath(began + left_s)
        if said is not None:
            self.station.log.emit(told(self.station, said.outcome, said))
        self._change_state("left")
        await self._write_checkpoint(side, wait=True)

    def _flushed(self, side: StageSide) -> bool:
        """No trainer waits for a sample any more, and nothing is held."""
        training, waiting = self._trainers("training", "paused"), self._trainers("consensus")
        side.served.stepping.flush = not training
        side.served.stepping.counted()
        return not (training or waiting) and side.served.empty

    def _trainers(self, *states: str) -> bool:
        """Whether some live trainer is in one of these."""
        members = self.link.membership
        live = (members.status(peer) for peer in members.alive(time.monotonic(), states))
        return any(status is not None and status.role == "trainer" for status in live)

    async def _give(self, side: StageSide) -> None:
        until = time.monotonic() + self.station.peer.serve_s
        while time.monotonic() < until:
            await self._paint(side)
            await asyncio.sleep(POLL_S)

    # ---- building -----------------------------------------------------------------------------

    def _check_run(self, run_file: RunFile) -> None:
        self.run_file = run_file
        run, peer = self.run_file.config, self.station.peer
        self._keeper = Keeper(self.station.out, run_file.fingerprint, peer, self.station.log.emit)
        stages = run.pipeline.stages
        if stages < 2:
            raise ConfigError("this run is not cut: stage peers are for runs with [pipeline]")
        if self._wanted is not None and not 0 <= self._wanted < stages:
            raise ConfigError(f"--stage {self._wanted}: the run has stages 0 to {stages - 1}")
        run.model.build("model", peer.models).plan(stages)
        device = choose_device(peer.device)
        self.station.log.emit(
            PeerStarted(
                role="stage",
                run=run.name,
                fingerprint=self.run_file.fingerprint,
                peer_id=self.station.identity.peer_id,
                device=str(device),
                slowdown=peer.slowdown,
            )
        )

    async def _first_stage(self) -> int:
        """The one that was asked for, that of the own checkpoint, or where this peer helps most."""
        if self._wanted is not None:
            return self._wanted
        kept = await asyncio.to_thread(self._kept, None)
        if kept is not None:
            return int(kept.facts["stage"])
        return self._mover.first_stage()

    async def _build(self, stage: int) -> StageSide:
        side = await asyncio.get_running_loop().run_in_executor(
            self._thread,
            StageSide.build,
            self.station,
            self.run_file.config,
            stage,
        )
        side.join(self.link, self._thread)
        await side.served.open()
        return side

    # ---- the first state ------------------------------------------------------------------------

    async def _take_state(self, side: StageSide, *, moved: bool) -> int:
        """A live donor of the stage, the own checkpoint, or the run's seed where nothing began.

        Raises:
            UnreachableError: the stage was trained, and nobody gives its state.
        """
        began = time.monotonic()
        await self._see_somebody()
        deadline = began + self.station.peer.donor_s
        while True:
            found = await self._donors.fetch(side)
            if found is not None:
                return self._took(side, "donor", began, found)
            kept = None if moved else await asyncio.to_thread(self._kept, side)
            if kept is not None:
                side.served.stepping.remember(kept.facts.get("in_weights", ()))
                await side.adopt(kept, self._newest_step())
                return self._took(side, "checkpoint", began)
            if not self._has_begun():
                await side.adopt(None, 0)
                return self._took(side, "seed", began)
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"stage {side.stage} was trained and nobody gives its state: without it this "
                    "peer would serve other weights than the run's"
                )
            await asyncio.sleep(ASK_AGAIN_S)

    async def _see_somebody(self) -> None:
        """Until anybody of the run is seen, nothing can be said about its state."""
        deadline = time.monotonic() + LOOK_AROUND_S
        while not self.link.membership.alive(time.monotonic()):
            if time.monotonic() > deadline:
                raise UnreachableError("connected, but no record of any other peer can be read")
            await asyncio.sleep(POLL_S)

    def _has_begun(self) -> bool:
        """Whether any stage has taken a step."""
        return self._newest_step() > 0

    def _newest_step(self) -> int:
        members = self.link.membership
        known = [members.status(peer) for peer in members.alive(time.monotonic())]
        return max((s.step for s in known if s is not None and s.role == "stage"), default=0)

    def _took(self, side: StageSide, source: str, began: float, found: Found = NOTHING) -> int:
        event = StateTaken(
            source=source,
            step=side.version,
            weights=side.weights_hash(),
            seconds=time.monotonic() - began,
            bytes=found.nbytes,
            donor=found.donors[0] if found.donors else "",
            donors=len(found.donors),
            followed=found.steps,
        )
        self.station.log.emit(event)
        return event.bytes

    # ---- state on disk and for others -----------------------------------------------------------

    async def _keep(self, side: StageSide) -> None:
        """Portraits for whoever asks, checkpoints now and then, a new state when one is missed."""
        self._keeper.begin()
        while True:
            await self._paint(side)
            if side.missed:
                await self._catch_up(side)
            if self._keeper.due and not self._keeper.busy:
                await self._write_checkpoint(side, wait=False)
            await asyncio.sleep(POLL_S)

    async def _catch_up(self, side: StageSide) -> None:
        """A step was missed: mates that took it have the state."""
        began = time.monotonic()
        self._change_state("syncing")
        while (found := await self._donors.fetch(side)) is None:
            if not side.donors():
                # Whoever was ahead is gone: what is here is the best that is left of the stage.
                await side.stay()
                break
            await asyncio.sleep(ASK_AGAIN_S)
        else:
            self._took(side, "donor", began, found)
        self._change_state("training")

    async def _paint(self, side: StageSide) -> None:
        """A copy that takes longer than a step needs the steps since; so long they are kept."""

        def paint() -> None:
            self._easel.paint(lambda: self._portrait(side))
            if follows:
                side.keep_steps(FOLLOW_S)

        follows = self._giver.copied and self._donors.alike
        if self._easel.wanted:
            await side.served.service.exclusively(paint)
        elif follows:
            side.keep_steps(FOLLOW_S)
        side.served.log.tidy(time.monotonic())

    def _logged(self, step: int) -> Logged | None:
        return self._side.served.log.get(step) if self._side is not None else None

    def _portrait(self, side: StageSide) -> Portrait:
        facts: dict[str, Any] = {
            "fingerprint": self.run_file.fingerprint,
            "step": side.served.past.step,
            "tokens": 0,
            "elapsed_s": self.link.progress.elapsed_s(side.served.past.elapsed_s),
            "met": side.replica.met,
            "stage": side.stage,
            "past": side.served.past.pack(),
        }
        return Portrait(side.tensors(), facts)

    async def _write_checkpoint(self, side: StageSide, *, wait: bool) -> None:
        portrait = await side.served.service.exclusively(lambda: side.kept(self._portrait(side)))
        await asyncio.to_thread(self._keeper.write, lambda: portrait, wait=wait)

    def _kept(self, side: StageSide | None) -> Portrait | None:
        """The newest checkpoint: of any stage, or one that fits this ``side``."""
        if side is None:
            return self._keeper.read(_read_past)

        def check(kept: Portrait) -> None:
            _read_past(kept)
            side.replica.check(kept.tensors)

        return self._keeper.read(check, stage=side.stage)

    # ---- numbers --------------------------------------------------------------------------------

    def _serving(self, side: StageSide) -> Serving:
        load, settled_s = side.load(), time.monotonic() - self._settled_at
        return Serving(self.link.node.me, side.stage, load.rate, load.demand, settled_s)

    @property
    def _past(self) -> Past:
        """Of the state that is served; an empty one before there is any."""
        side = self._side
        return side.served.stepping.past if side is not None and side.placed else Past()

    def _over(self) -> bool:
        past = self._past
        done = self.link.progress.share(0, past.elapsed_s, past.committed) >= 1
        return done or self.link.phonebook.order == "end"

    def _status(self) -> Status:
        side = self._side
        load = side.load() if side is not None else None
        past, elapsed_s = self._past, 0.0
        if self._joined:
            elapsed_s = self.link.progress.elapsed_s(past.elapsed_s)
        return Status(
            incarnation=0,
            counter=0,
            state=self.state,
            role="stage",
            elapsed_s=elapsed_s,
            step=side.version if side is not None else 0,
            committed=past.committed,
            stage=self._stage,
            serves=load.rate if load else 0.0,
            demand=load.demand if load else 0.0,
            settled_s=time.monotonic() - self._settled_at,
        )

    def _change_state(self, state: str) -> None:
        self.state = state
        self.link.phonebook.nudge()

    def _announce(self, side: StageSide, left: int, seconds: float, size: int) -> None:
        event = StageTaken(
            stage=side.stage,
            left=left,
            layers=list(side.layers),
            parameters=side.parameters,
            step=side.version,
            seconds=seconds,
            bytes=size,
        )
        self.station.log.emit(event)

    def _log_finished(self, reason: str) -> None:
        """Before the result is served: what is given away then stands in events of its own."""
        self._finished = True
        side = self._side
        steps = self._steps + (side.steps if side else 0)
        self.station.log.emit(
            PeerFinished(
                reason=reason,
                steps=steps,
                tokens=0,
                ok=steps,
                solo=0,
                failed=0,
                bytes_sent=self._bytes + (side.bytes_sent if side else 0),
                train_s=time.monotonic() - self._began,
                stall_s=0.0,
                memory=psutil.Process().memory_info().rss,
            )
        )


def _read_past(kept: Portrait) -> None:
    """Bring the past of a checkpoint into the form of a donor's. Raises PayloadError."""
    try:
        past = kept.facts["past"]
        past["commits"] = [(step, bytes.fromhex(ids)) for step, ids in past["commits"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PayloadError("a stage's past that cannot be read") from error
    Past.unpack(past)


def serve(
    station: Station, invite: Invite, given: bytes | None = None, stage: int | None = None
) -> int:
    """Run a stage peer to its end. Raises SwarmnetError."""
    try:
        return StagePeer(station, invite, given, stage).run()
    finally:
        station.close()
