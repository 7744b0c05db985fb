"""A worker: holds a whole replica, takes inner steps, meets random partners in the background.

Life of a worker: syncing -> training (-> paused -> training) -> consensus -> serving -> left.
The main thread trains; everything of the network happens in the network thread.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import torch

from peers.account import Account
from peers.arrival import Arrival
from peers.donors import Donors
from peers.firststate import First
from peers.give import Giver, Terms
from peers.keeper import Keeper
from peers.leaving import Leaving, settle
from peers.link import Link, Newcomer
from peers.portrait import Easel, Portrait
from peers.reading import FellowReaders, furthest, told
from peers.resume import Parts, answer_for, check, memorise, resume
from peers.station import Station
from peers.take import Taken
from swarmnet.config import RunFile
from swarmnet.data import Batches, Corpus
from swarmnet.errors import (
    ConfigError,
    PayloadError,
    StopRequested,
    StorageError,
    UnreachableError,
)
from swarmnet.events import (
    FINISHED,
    ExchangeDone,
    MemoryReserved,
    PeerStarted,
    StateTaken,
    StepDone,
)
from swarmnet.exchange.consensus import Plan, reach_consensus
from swarmnet.exchange.desk import Desk
from swarmnet.exchange.driver import Gossip
from swarmnet.exchange.links import Links
from swarmnet.exchange.membership import Status
from swarmnet.exchange.surroundings import Surroundings
from swarmnet.exchange.window import Window
from swarmnet.model import ModelBuilder
from swarmnet.train.budget import reserved
from swarmnet.train.loop import Step, Trainer, choose_device
from swarmnet.train.replica import Replica
from swarmnet.wire.invite import Invite

POLL_S = 0.02
BUSY_MACHINE = 4.0
"""Seconds that a second of work may take where others work too."""


class Worker:
    """One worker process. ``run`` returns the process's exit code."""

    def __init__(self, station: Station, invite: Invite, given: bytes | None = None) -> None:
        self.station = station
        self._invite = invite
        self._given = given
        self.state = "syncing"
        self._account = Account()
        self._easel = Easel()
        self._watched: list[Future[None]] = []
        self._keeper: Keeper
        self._kept: Portrait | None = None
        """The own checkpoint, until it is known where the first state comes from."""
        self.trainer: Trainer
        self.replica: Replica
        self.gossip: Gossip
        self.link: Link
        self.run_file: RunFile

    # ---- life ---------------------------------------------------------------------------------

    def run(self) -> int:
        """Join, train to the end of the run, serve the result. Raises SwarmnetError."""
        station = self.station
        newcomer = Newcomer(station, self._invite, self._given)
        self.link = newcomer.enter(self._status, self._build)
        try:
            self._fellows = FellowReaders(self.link, "worker")
            self._take_state()
            return self._live()
        finally:
            station.net.run(self.link.leave())

    def _live(self) -> int:
        self._change_state("training")
        net = self.station.net
        self._watched = [net.submit(self.gossip.run()), net.submit(self.link.node.wait_failed())]
        if not (self._train() and self._reach_consensus()):
            self._hand_over()
            self._farewell(f"left: {self.station.stop.reason}")
            return StopRequested.exit_code
        problem = self._save_model()
        self._change_state("serving")
        self._farewell(FINISHED)
        self._serve()
        if problem is not None:
            raise problem
        return 0

    def _farewell(self, reason: str) -> None:
        if self.trainer.steps > self._account.first_step:
            self._write_checkpoint(wait=True)
        self.station.log.emit(self._account.finished(reason, self.trainer.steps))

    def _hand_over(self) -> None:
        """In the consensus phase no window is open: weights are averaged as they are."""
        if self.state == "consensus":
            return
        self._change_state("left")  # nobody should call, or ask for a state, from here on
        leaving = Leaving(
            self.station, self.gossip, self.replica.legacy, lambda: self._boundary(1.0)
        )
        worked = self.trainer.steps > self._account.first_step
        said = leaving.hand_over(self.trainer.steps, worked=worked)
        self._account.gave(said.bytes)
        self.station.log.emit(said)

    def _check_network(self) -> None:
        """Nobody else would notice. Raises UnreachableError, or whatever bug ended the meetings."""
        for future in self._watched:
            if future.done():
                future.result()

    # ---- building -----------------------------------------------------------------------------

    def _build(self, run_file: RunFile) -> None:
        self.run_file = run_file
        run, peer = self.run_file.config, self.station.peer
        if run.pipeline.stages > 1:
            raise ConfigError("this run is cut into stages: --role stage or trainer, not worker")
        if peer.threads:
            torch.set_num_threads(peer.threads)
        self._keeper = Keeper(self.station.out, run_file.fingerprint, peer, self.station.log.emit)
        device = choose_device(peer.device)
        self.builder: ModelBuilder = run.model.build("model", peer.models)
        module = self.builder.build(run.seed).to(device)
        corpus: Corpus = run.data.build("data", self.builder.tokenizer(), peer.texts, peer.cache)
        me = self.station.identity.peer_id
        self.replica = Replica(module, run, seed=self.station.seed)
        self.replica.weight = corpus.weight
        self.trainer = Trainer(run, self.replica, Batches(corpus.train, run, me))
        self.station.log.emit(
            PeerStarted(
                role="worker",
                run=run.name,
                fingerprint=self.run_file.fingerprint,
                peer_id=me,
                device=str(device),
                parameters=self.replica.theta.numel(),
                corpus=corpus.hash,
                slowdown=peer.slowdown,
            )
        )
        self.station.log.emit(MemoryReserved(**reserved(self.replica)))
        torch.manual_seed(random.Random(f"{run.seed} {me}").getrandbits(63))
        self._kept = self._keeper.read(lambda kept: check(kept, self.replica))
        if self._kept is not None:
            self._count_from(self._kept)

    def _count_from(self, kept: Portrait) -> None:
        """Others see from the beginning how far the own checkpoint is, and count its tokens."""
        self.trainer.steps = kept.facts["step"]
        self._account.tokens = kept.facts["tokens"]
        self._account.base_elapsed_s = float(kept.facts["elapsed_s"])

    def _open_exchange(self, kept: Portrait | None) -> None:
        """Answer for the rounds that the ``kept`` weights hold from the first question on."""
        run, me = self.run_file.config, self.link.node.me
        rng = random.Random(f"{run.seed} {me}")
        matching = run.matching.build("matching")
        window = Window(me, run.cadence.build("cadence"), matching, rng)

        def wants(step: int, progress: float) -> bool:
            return self.state == "consensus" or window.welcome_at(step, progress)

        self.desk = Desk(self.replica, wants)
        self.around = Surroundings(
            transport=self.link.node,
            membership=self.link.membership,
            links=Links(),
            mine=self.link.phonebook.mine,
            offload=asyncio.to_thread,
            emit=self._note_exchange,
        )
        giver = Giver(
            self.run_file.raw,
            self._easel,
            lambda: self.state,
            Terms.of(self.station.peer),
            self.station.log.emit,
        )

        async def open_all() -> Gossip:
            incarnation = self.link.phonebook.mine().incarnation
            gossip = Gossip(self.around, window, self.desk, self.replica, incarnation)
            if kept is not None:
                answer_for(kept, gossip)
            await gossip.open()
            await self.link.give(giver.handle)
            return gossip

        self.gossip = self.station.run(open_all())

    # ---- the first state ------------------------------------------------------------------------

    def _take_state(self) -> None:
        """Own checkpoint, a healthy donor or the run's seed, as ``firststate`` decides.

        Raises:
            UnreachableError: nobody of the swarm is seen, or nobody gives a sound state.
        """
        began, kept = time.monotonic(), self._kept
        own_s = float(kept.facts["elapsed_s"]) if kept is not None else None
        first = Arrival(self.station, self.link, own_s).settle()
        self._open_exchange(kept if first is First.OWN else None)
        if first is First.DONOR:
            self._join(began)
        elif first is First.OWN and kept is not None:
            resume(kept, self.replica, self.trainer)
            self._log_state("checkpoint", began)
        else:
            self._log_state("seed", began)
        Donors(self.station, self.link).forget()
        self.trainer.batches.sharing.catch_up(furthest(self._fellows.view()))
        self._account.first_step = self.trainer.steps
        self._kept = None

    def _join(self, began: float) -> None:
        """From donors; where none gives a sound state, from the own checkpoint after all."""
        donors = Donors(self.station, self.link)
        try:
            taken = donors.fetch(self.replica.tensors(), self._wanted)
        except UnreachableError:
            if self._kept is None:
                raise
            resume(self._kept, self.replica, self.trainer)
            answer_for(self._kept, self.gossip)
            self._log_state("checkpoint", began)
        else:
            self._adopt(taken.portrait)
            self.replica.begin_anew()
            if self._kept is not None:  # the own text goes on where it was
                self.trainer.batches.resume(self._kept.facts["reading"])
            self._log_state("donor", began, taken)
            self.gossip.window.ripen(self.trainer.steps, self._progress())

    def _wanted(self, facts: Mapping[str, Any]) -> None:
        """Raises PayloadError at a state that is behind the own checkpoint."""
        if self._kept is not None and facts["elapsed_s"] <= self._kept.facts["elapsed_s"]:
            raise PayloadError("a state that is older than the own checkpoint")

    def _adopt(self, portrait: Portrait) -> None:
        """Raises PayloadError when it does not fit this run."""
        facts = portrait.facts
        self.replica.load(portrait.tensors, met=bool(facts["met"]))
        self.trainer.steps = facts["step"]
        self._account.base_elapsed_s = float(facts["elapsed_s"])

    # ---- training -----------------------------------------------------------------------------

    def _train(self) -> bool:
        """Inner steps until the run is over (True) or this process was told to leave (False)."""
        station, phonebook = self.station, self.link.phonebook
        self._keeper.begin()
        while not station.stop:
            self._check_network()
            progress = self._progress()
            if self.link.rests(progress):
                self._pause()
                continue
            if progress >= 1 or phonebook.order == "end":
                return True
            self._step(progress)
        return False

    def _step(self, progress: float) -> None:
        started, waited_s = time.perf_counter(), self.desk.waited_s
        self._boundary(progress)
        if self._keeper.due and not self._keeper.busy and self.desk.all_applied:
            self._write_checkpoint(wait=False)
        stall_s = self.desk.waited_s - waited_s
        step = self._paced_step(progress)
        if self._account.begin():
            self.link.phonebook.nudge()  # whoever joins now must see that there is a state to copy
        seconds = time.perf_counter() - started
        self._account.stepped(step, seconds, stall_s)
        self.station.log.emit(
            StepDone(
                step=self.trainer.steps,
                loss=step.loss,
                lr=step.lr,
                tokens=step.tokens,
                progress=progress,
                seconds=seconds,
                stall_s=stall_s,
            )
        )
        self._between_steps()

    def _paced_step(self, progress: float) -> Step:
        """One inner step, as long as it would take on the machine that the peer file asks for."""
        began, worked = time.perf_counter(), time.thread_time()
        step = self.trainer.step(progress, self._fellows.view())
        # A process that was stopped within the step has not worked for as long as it took.
        busy_s = BUSY_MACHINE * (time.thread_time() - worked)
        took = min(time.perf_counter() - began, busy_s)
        peer = self.station.peer
        self.station.stop.wait(max((peer.slowdown - 1) * took, peer.step_s - took))
        return step

    def _boundary(self, progress: float) -> None:
        for event in self.desk.boundary(self.trainer.steps, progress):
            self._note_exchange(event)

    def _between_steps(self) -> None:
        for event in told(self.trainer.batches.sharing.finished()):
            self.station.log.emit(event)
        self._easel.paint(self._portrait)

    def _pause(self) -> None:
        """The owner's order or my own: no steps, no meetings, still alive and still a donor."""
        self.gossip.paused = True
        self._change_state("paused")
        while self.link.rests(self._progress()) and not self.station.stop.wait(POLL_S):
            self._check_network()
            self._boundary(self._progress())
            self._easel.paint(self._portrait)
        self.gossip.paused = False
        self._change_state("training")

    # ---- the end --------------------------------------------------------------------------------

    def _reach_consensus(self) -> bool:
        """Hold the scheduled rounds of pure averaging; False when told to leave meanwhile."""
        settle(self.gossip, lambda: self._boundary(1.0))
        self.gossip.enter_consensus()
        self._change_state("consensus")
        run = self.run_file.config
        phase_config = run.consensus
        plan = Plan(
            phase_config.matching.build("matching"),
            run.seed,
            phase_config.budget_s,
            phase_config.bound,
        )
        phase = self.station.net.submit(reach_consensus(self.gossip, self.around, plan))
        while not phase.done() and not self.station.stop:
            self._boundary(1.0)
            self._easel.paint(self._portrait)
            time.sleep(POLL_S)
        if not phase.done():
            phase.cancel()
            return False
        phase.result()
        self._boundary(1.0)
        self.gossip.stance = "leaving"
        return True

    def _save_model(self) -> StorageError | None:
        """A refusing disk does not keep this peer from giving its result to others."""
        try:
            self.builder.save(self.replica.module, self.station.out / "model")
        except StorageError as error:
            return error
        return None

    def _serve(self) -> None:
        """Give the result to whoever exports, until told to stop or nobody came for long enough."""
        until = time.monotonic() + self.station.peer.serve_s
        while time.monotonic() < until and not self.station.stop.wait(POLL_S):
            self._easel.paint(self._portrait)

    # ---- state on disk and for others -----------------------------------------------------------

    def _portrait(self) -> Portrait:
        return Portrait(self.replica.tensors(), self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "fingerprint": self.run_file.fingerprint,
            "step": self.trainer.steps,
            "tokens": self._account.tokens,
            "elapsed_s": self._account.elapsed_s,
            "met": self.replica.met,
        }

    def _write_checkpoint(self, *, wait: bool) -> None:
        parts = Parts(self.replica, self.trainer, self.gossip)
        self._keeper.write(lambda: memorise(parts, self._facts()), wait=wait)

    # ---- numbers --------------------------------------------------------------------------------

    def _status(self) -> Status:
        span = self.trainer.batches.sharing.span
        return Status(
            incarnation=0,
            counter=0,
            state=self.state,
            role="worker",
            tokens=self._account.tokens,
            elapsed_s=self._account.elapsed_s,
            step=self.trainer.steps,
            rate=self._account.rate,
            since=span.since,
            read=span.read,
        )

    def _change_state(self, state: str) -> None:
        self.state = state
        if state == "training":
            self.gossip.stance = "train"
        self.link.phonebook.nudge()

    def _progress(self) -> float:
        return self.link.progress.share(self._account.tokens, self._account.elapsed_s)

    def _note_exchange(self, event: ExchangeDone) -> None:
        self._account.note(event)
        self.station.log.emit(event)

    def _log_state(self, source: str, began: float, taken: Taken | None = None) -> None:
        self.station.log.emit(
            StateTaken(
                source=source,
                step=self.trainer.steps,
                weights=self.replica.weights_hash(),
                seconds=time.monotonic() - began,
                bytes=taken.nbytes if taken else 0,
                donor=taken.donors[0] if taken else "",
                donors=len(taken.donors) if taken else 0,
            )
        )


def work(station: Station, invite: Invite, given: bytes | None = None) -> int:
    """Run a worker to its end. Raises SwarmnetError."""
    try:
        return Worker(station, invite, given).run()
    finally:
        station.close()
