"""A bootstrap: the DHT's entry point, relay, giver of the run file, keeper of the owner's key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peers.give import TOPIC, serve_run_file
from peers.link import REFERENCE, Link, node_options
from peers.milestone import Memory
from peers.station import Station
from swarmnet.config import RunConfig, RunFile
from swarmnet.errors import StopRequested, StorageError
from swarmnet.events import PeerStarted
from swarmnet.exchange.membership import Status
from swarmnet.files import replace_text
from swarmnet.model import ModelBuilder
from swarmnet.net.identity import load_or_create
from swarmnet.net.node import Node
from swarmnet.wire.invite import Invite

OWNER_KEY = "owner.key"
TICK_S = 1.0


@dataclass(frozen=True)
class Seen:
    """What the bootstrap tells its owner every now and then."""

    peers: int
    tokens: int
    progress: float


class Bootstrap:
    """One bootstrap process; trains nothing and holds no weights."""

    def __init__(self, station: Station, run: RunFile) -> None:
        self.station = station
        self._run = run
        self._memory = Memory(station.out, station.peer.checkpoint_s)
        self._link: Link
        self.invite: Invite

    def start(self) -> Invite:
        """Begin (or, with the same folder, continue) the run.

        Raises:
            AddressError: it cannot listen there. ModelError: no such model, or it cannot be cut so.
        """
        station = self.station
        _check_cut(self._run.config)
        self._keep_run_file()
        owner = load_or_create(station.out / OWNER_KEY)
        self._link = station.run(self._open(owner.peer_id))
        addresses = self._link.node.addresses
        self.invite = Invite(
            self._run.config.name, self._run.fingerprint, tuple(addresses[:4]), owner.peer_id
        )
        station.log.emit(
            PeerStarted(
                role="bootstrap",
                run=self._run.config.name,
                fingerprint=self._run.fingerprint,
                peer_id=self._link.node.me,
            )
        )
        return self.invite

    def serve(self, tell: Callable[[Seen], None]) -> int:
        """Until told to stop; calls ``tell`` about once a second. Returns the exit code."""
        try:
            while not self.station.stop.wait(TICK_S):
                tell(self.station.net.run(self._look()))
        finally:
            self.station.net.run(self._link.leave())
        return StopRequested.exit_code

    async def _open(self, owner: str) -> Link:
        options = node_options(self.station, self._run.fingerprint, run_file=self._run.raw)
        node = await Node.start(options)
        await node.serve(TOPIC, partial(serve_run_file, self._run.raw))
        return await Link.join(self.station, node, self._run, owner, self._status)

    async def _look(self) -> Seen:
        self._memory.look(self._link.membership, self._link.workers())
        progress = self._link.progress
        return Seen(len(self._link.volunteers()), progress.tokens(0), progress.share(0, 0.0))

    def _status(self) -> Status:
        told = self._memory.told
        return Status(
            incarnation=0,
            counter=0,
            state="serving",
            role="bootstrap",
            step=told.step,
            elapsed_s=told.elapsed_s,
        )

    def _keep_run_file(self) -> None:
        try:
            (self.station.out / REFERENCE).write_bytes(self._run.raw)
        except OSError as error:
            raise StorageError(f"{self.station.out}: {error.strerror}") from error


def _check_cut(run: RunConfig) -> None:
    """Said here, before anybody is invited; a model folder is only where peers have it."""
    if run.pipeline.stages > 1 and not run.model.options.get("folder"):
        builder: ModelBuilder = run.model.build("model", {})
        builder.plan(run.pipeline.stages)


def write_invite(invite: Invite, path: Path) -> None:
    """Whole or not at all: somebody may be waiting for the file."""
    replace_text(path, invite.encode() + "\n")
