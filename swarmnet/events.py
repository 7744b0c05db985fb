"""Typed events: the one source of everything that is shown, measured or reported.

Every process writes one JSON object a line into its own ``events.jsonl``; a line carries the
wall clock ``time``, the writer's ``peer`` name and the event's name under ``event``. Readers
skip a torn last line, because a killed process may leave one.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

WALL = time.time
"""Bound here: an experiment that sets a process's clock wrong leaves the log's stamps right."""


class Event:
    """Base of all events; subclasses are frozen dataclasses whose ``name`` stands in the log."""

    name: ClassVar[str]
    types: ClassVar[dict[str, type[Event]]] = {}

    def __init_subclass__(cls) -> None:
        Event.types[cls.name] = cls


@dataclass(frozen=True)
class PeerStarted(Event):
    """A process is up: its role and what it will train. ``slowdown`` is slower on purpose."""

    name = "peer_started"
    role: str
    run: str
    fingerprint: str
    peer_id: str
    device: str = ""
    parameters: int = 0
    corpus: str = ""
    slowdown: float = 1.0


@dataclass(frozen=True)
class MemoryReserved(Event):
    """Bytes that a worker holds beside activations, by purpose (``train/budget.py``)."""

    name = "memory_reserved"
    weights: int
    gradients: int
    inner: int
    outer: int
    snapshots: int
    payloads: int
    corrections: int
    open_questions: int
    checkpoint: int = 0


@dataclass(frozen=True)
class StateTaken(Event):
    """Where the first weights came from: ``seed``, ``donor`` or ``checkpoint``.

    ``donors`` brought parts of it; ``donor`` is the one whose numbers go with it. ``followed``: of
    a stage, steps that mates took meanwhile and that came one by one.
    """

    name = "state_taken"
    source: str
    step: int
    weights: str
    seconds: float = 0.0
    bytes: int = 0
    donor: str = ""
    donors: int = 0
    followed: int = 0


@dataclass(frozen=True)
class RunEntered(Event):
    """This process is in the phone book: seconds for its node, the run file, what it built from
    that, and the book."""

    name = "run_entered"
    node_s: float
    run_file_s: float
    build_s: float
    book_s: float


@dataclass(frozen=True)
class StateAwaited(Event):
    """A joiner has no whole state yet: how many chunks are ``left``, how many donors give now.

    ``reason``: why nobody does.
    """

    name = "state_awaited"
    chunks: int
    left: int
    donors: int
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class DonorLeft(Event):
    """A joiner lost a donor; a ``banned`` one sent what it must not send."""

    name = "donor_left"
    donor: str
    reason: str
    banned: bool


@dataclass(frozen=True)
class StageTaken(Event):
    """A stage peer begins to serve: its ``stage``, and the one it left (-1: it is new)."""

    name = "stage_taken"
    stage: int
    left: int
    layers: list[int]
    parameters: int
    step: int
    seconds: float
    bytes: int = 0


@dataclass(frozen=True)
class StageStepped(Event):
    """One step of a stage at one of its peers. ``members`` and ``samples`` of the whole commit;
    ``own`` are this peer's samples in it; ``lineage`` names all steps so far."""

    name = "stage_step"
    stage: int
    step: int
    members: int
    samples: int
    own: int
    tokens: int
    lr: float
    seconds: float
    lineage: str
    progress: float


@dataclass(frozen=True)
class StageLoad(Event):
    """What a stage peer did since its last such event, about once a second.

    ``recomputed``, ``refused`` and ``failed`` (meetings for a step) count from its beginning.
    """

    name = "stage_load"
    stage: int
    step: int
    waiting: int
    under_way: int
    held: int
    sequences: int
    busy_s: float
    seconds: float
    recomputed: int
    refused: int
    failed: int = 0
    letter_bytes: int = 0
    meeting_bytes: int = 0


@dataclass(frozen=True)
class SamplesLost(Event):
    """Samples that this peer had counted and no step holds; their trainers send them again."""

    name = "samples_lost"
    stage: int
    samples: int


@dataclass(frozen=True)
class TripsDone(Event):
    """A trainer's ledger, and the trips that ended since the last such event.

    Every sample ever begun is open, whole (counted at every stage) or settled (in a step of
    every stage). ``loss`` in nats per token, 0 without a trip; ``seconds`` a trip's mean.
    """

    name = "trips"
    begun: int
    open: int
    whole: int
    settled: int
    attempts: int
    causes: dict[str, int]
    trips: int
    tokens: int
    loss: float
    seconds: float
    window: int
    progress: float
    unserved: list[int]


@dataclass(frozen=True)
class StepDone(Event):
    """One inner step. ``loss`` in nats per token; ``stall_s`` is time waited for the network."""

    name = "step"
    step: int
    loss: float
    lr: float
    tokens: int
    progress: float
    seconds: float
    stall_s: float


@dataclass(frozen=True)
class BlocksRead(Event):
    """Blocks of text that this peer has read to their end, of ``of`` in the epoch."""

    name = "blocks_read"
    epoch: int
    blocks: list[int]
    of: int


@dataclass(frozen=True)
class ExchangeDone(Event):
    """One window's meeting. ``outcome`` is ok, solo, failed, pending or late.

    ``distance`` is the root mean square difference between the two payloads; ``staleness`` the
    inner steps between the snapshot and the moment its result was applied. ``called``: this side
    offered. Seconds, 0 when not measured: ``answer_s`` from the call to the answer, ``start_s``
    from there until the partner had something to send, ``send_s`` and ``receive_s`` for the two
    payloads; ``payload_bytes`` of the partner's arrived. A group's meeting names its leader as
    ``partner``, ``members`` counts whose contributions are in the result, and ``reason`` says who
    was removed and why.
    """

    name = "exchange"
    phase: str
    outcome: str
    partner: str
    round: int
    seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    distance: float = 0.0
    staleness: int = 0
    reason: str = ""
    called: bool = False
    answer_s: float = 0.0
    start_s: float = 0.0
    send_s: float = 0.0
    receive_s: float = 0.0
    payload_bytes: int = 0
    members: int = 2


@dataclass(frozen=True)
class PeerSeen(Event):
    """The live view gained or lost a peer (``alive`` says which)."""

    name = "peer_seen"
    peer_id: str
    alive: bool


@dataclass(frozen=True)
class ViewSeen(Event):
    """How old the live view is: seconds since the last sign of life of each live peer.

    ``reads`` counts looks at all records of the phone book since the start.
    """

    name = "view_seen"
    peers: int
    age_median_s: float
    age_max_s: float
    reads: int


@dataclass(frozen=True)
class CheckpointWritten(Event):
    """A checkpoint is on disk; with ``error`` it is not, and the previous one stands.

    ``copy_s`` is what training waited; ``dropped`` older ones went because the disk was full.
    """

    name = "checkpoint"
    step: int
    seconds: float
    bytes: int
    error: str = ""
    copy_s: float = 0.0
    dropped: int = 0


@dataclass(frozen=True)
class CheckpointPassedOver(Event):
    """A checkpoint in the own folder is damaged, or not of this run: an older one serves."""

    name = "checkpoint_passed_over"
    folder: str
    reason: str


@dataclass(frozen=True)
class DaemonRestarted(Event):
    """The libp2p daemon died and is back under the same identity."""

    name = "daemon_restarted"
    seconds: float


@dataclass(frozen=True)
class ReachSeen(Event):
    """Whether others can open connections to this peer: ``public``, ``private`` or ``unknown``.

    ``relays``: whose slots a private one books.
    """

    name = "reach"
    reach: str
    relays: list[str]


@dataclass(frozen=True)
class PathSeen(Event):
    """How this peer is connected to another one now: ``direct``, ``relayed`` or ``lost``."""

    name = "path"
    peer_id: str
    path: str
    relay: str = ""


@dataclass(frozen=True)
class ClockOff(Event):
    """This computer's clock is ``ahead_s`` ahead (behind: below 0) of those of ``peers`` others."""

    name = "clock_off"
    ahead_s: float
    peers: int


@dataclass(frozen=True)
class StateServed(Event):
    """This peer gave its state to somebody; with ``step`` only how its stage came to that one."""

    name = "state_served"
    to: str
    bytes: int
    seconds: float
    step: int = 0


@dataclass(frozen=True)
class Evaluated(Event):
    """Held-out loss (nats per token) of ``merged`` or of one replica."""

    name = "evaluated"
    subject: str
    loss: float
    tokens: int


@dataclass(frozen=True)
class FaultInjected(Event):
    """Somebody hurt the swarm on purpose, or (``over``) what hurt ``subject`` has ended.

    ``kind`` is kill, join, freeze or another of ``peers/storm``; a kill is over when somebody is
    back, in the same folder (``subject`` again) or in a new one (``successor``). ``seconds``: how
    long it is meant to last, 0 for good. Lines of one ``number`` belong to one fault.
    """

    name = "fault"
    kind: str
    subject: str
    seconds: float = 0.0
    over: bool = False
    number: int = 0
    successor: str = ""


@dataclass(frozen=True)
class SampleWritten(Event):
    """Text that the merged model wrote."""

    name = "sample"
    prompt: str
    text: str


@dataclass(frozen=True)
class PageOpened(Event):
    """This peer shows a page about itself there."""

    name = "page_opened"
    url: str


@dataclass(frozen=True)
class FarewellSaid(Event):
    """What became of a leaver's unfinished window: ``given`` to a neighbour, ``unsure`` (it got all
    and did not confirm), ``nobody`` took it, or there was ``nothing``. ``seconds`` since the order
    to leave. ``distance``: root mean square of the displacement that it has parted with; the heir's
    ``exchange`` (outcome ``inherited``) has that by which its own weights moved."""

    name = "farewell"
    outcome: str
    to: str = ""
    bytes: int = 0
    seconds: float = 0.0
    reason: str = ""
    distance: float = 0.0


FINISHED = "finished"
"""The reason of a peer that stayed to the end of the run; others say why they left."""


@dataclass(frozen=True)
class PeerFinished(Event):
    """The last line of a peer that left in good order. ``memory`` in bytes, resident."""

    name = "peer_finished"
    reason: str
    steps: int
    tokens: int
    ok: int
    solo: int
    failed: int
    bytes_sent: int
    train_s: float
    stall_s: float
    memory: int = 0


class EventLog:
    """Appends events of one process to a file and tells listeners. Safe from any thread.

    Each line is one unbuffered write. A line that a full disk refuses is lost, whole or torn; the
    log goes on with the next one that the disk takes.
    """

    def __init__(self, path: Path | None, peer: str) -> None:
        self.peer = peer
        self._lock = threading.Lock()
        self._listeners: list[Callable[[dict[str, Any]], None]] = []
        self._file: io.FileIO | None = None
        self._torn = False
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._torn = _ends_torn(path)
            self._file = io.FileIO(path, "a")

    def emit(self, event: Event) -> None:
        """Write ``event``; a full disk loses the line, never the training."""
        fields = dataclasses.asdict(event)  # type: ignore[call-overload]
        line = {"time": WALL(), "peer": self.peer, "event": event.name} | fields
        with self._lock:
            if self._file is not None:
                self._write(self._file, json.dumps(line).encode() + b"\n")
            listeners = list(self._listeners)
        for listener in listeners:
            listener(line)

    def _write(self, file: io.FileIO, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        try:
            written = file.write(line)
        except OSError:
            return
        self._torn = written != len(line)

    def listen(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """Call ``listener`` with every later line, in the emitting thread."""
        with self._lock:
            self._listeners.append(listener)

    def named(self, peer: str) -> EventLog:
        """The same file and listeners for another peer of this process; closed with this one."""
        other = copy.copy(self)
        other.peer = peer
        return other

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def _ends_torn(path: Path) -> bool:
    """Whether a killed process left half a line, which would swallow the next one."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, io.SEEK_END)
        return file.read(1) != b"\n"


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of an event file, oldest first; unreadable lines (a torn tail) are skipped."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and str(record.get("event")) in Event.types:
                yield record
