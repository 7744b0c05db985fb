"""A storm over a simulated swarm, and the judge of what it left.

The judge keeps a book for every process that ever was: which correction came from which meeting.
So the mean law is checked meeting by meeting, with peers that died, restarted afresh, or came back
from a checkpoint: what one side of a meeting added, the other side took, or is known to have lost.
"""

import asyncio
from collections import deque
from typing import NamedTuple

import numpy as np

from swarmnet.exchange.ledger import MAX_PENDING
from swarmnet.exchange.waiting import MAX_KNOWN
from swarmnet.sim import clock
from swarmnet.sim.network import Cut
from tests.unit.swarms import LAW, NAMES, Swarm

CUTS = ("cut", "cut late", "cut ask", "sever")
KINDS = (*CUTS, "freeze", "crash", "restart", "save", "resume", "partition")
ROUNDS_EACH = 1 << 16
"""Rounds of initial peers are set apart by this, so that a round says who offered it."""
MEETING_BYTES, QUESTION_BYTES = 700, 90
"""More than either side sends in one."""
SLOWEST_STEP_S = 1.1
MAX_DUE = 2 + MAX_PENDING
MAX_STREAMS = 12
MAX_TASKS = 12


class Fault(NamedTuple):
    """``after_s`` the one before, ``kind`` hits ``who``, with ``other``; ``size`` by kind."""

    after_s: float
    kind: str
    who: int
    other: int
    size: int


class Saved(NamedTuple):
    """What a checkpoint keeps of a simulated peer."""

    live: np.ndarray
    started: np.ndarray
    added: np.ndarray
    in_weights: tuple
    owed: tuple
    entries: tuple


class Process:
    """One life of one peer and its book: (partner, round, correction) of all it applied."""

    def __init__(self, peer, marks, saved=None):
        self.peer = peer
        self.born = clock.now()
        self.frozen_s = 0.0
        self.marks = marks
        """Others' newest rounds at birth: what is older, an earlier life may have met."""
        self.kept = saved.entries if saved else ()
        self._moves = []
        for name in ("apply_met", "apply_late"):
            setattr(peer.subject, name, self._noting(getattr(peer.subject, name)))

    def _noting(self, apply):
        def noted(*arguments):
            before = self.peer.subject.live.copy()
            apply(*arguments)
            self._moves.append(self.peer.subject.live - before)

        return noted

    @property
    def me(self):
        return self.peer.me

    @property
    def entries(self):
        met = [e for e in self.peer.events if e.outcome in ("ok", "late")]
        assert len(met) == len(self._moves)
        own = [(e.partner, e.round, move) for e, move in zip(met, self._moves, strict=True)]
        return (*self.kept, *own)

    def moved_by(self):
        """(partner, round) -> correction. Nothing is applied twice."""
        entries = self.entries
        book = {(partner, round_): move for partner, round_, move in entries}
        assert len(book) == len(entries), "a meeting was applied twice"
        return book

    def failed(self):
        return {(e.partner, e.round) for e in self.peer.events if e.outcome == "failed"}

    def save(self):
        subject, peer = self.peer.subject, self.peer
        in_weights = tuple(peer.gossip.settling.in_weights)
        return Saved(
            subject.live.copy(),
            peer.started,
            peer.added.copy(),
            in_weights,
            tuple(peer.gossip.pending.owed()),
            self.entries,
        )

    def excuses(self, key):
        """Whether an earlier life of this peer may have taken part in the meeting."""
        partner, round_ = key
        own = round_ >> 24 != self.peer.gossip._round >> 24
        return round_ <= self.marks.get(partner, -1) or (own and bool(self.marks))


class Storm:
    """Runs the script, then lets the swarm settle; ``judge`` says what must hold."""

    def __init__(self, swarm, script):
        self.swarm = swarm
        self.script = script
        self.processes = []
        """All lives, the dead ones too."""
        self.alive = {}
        self.saved = {}
        self.walls = []

    async def run(self):
        for index, peer in enumerate(self.swarm.peers):
            peer.gossip._round += index * ROUNDS_EACH
            self._enter(Process(peer, {}))
        await self.swarm.start()
        for process in self.processes:
            assert process.born == 0.0
        watch = asyncio.create_task(self._watch())
        for fault in self.script:
            await asyncio.sleep(fault.after_s)
            await getattr(self, fault.kind.replace(" ", "_"))(fault)
        await asyncio.sleep(5)
        for wall in self.walls:
            self.swarm.network.heal(*wall)
        peers = [process.peer for process in self.alive.values()]
        await self.swarm.settle(peers)
        await self._meet_again(peers)
        await self.swarm.settle(peers)
        watch.cancel()
        return self

    async def _meet_again(self, peers):
        """In calm everybody finds a partner; on slow links some windows end alone before."""
        met = {process: len(process.entries) for process in self.alive.values()}
        for peer in peers:
            peer.gossip.paused = False
        for _ in range(20):
            await asyncio.sleep(10)
            if all(len(process.entries) > before for process, before in met.items()):
                return
        assert len(peers) == 1, "somebody meets nobody"

    def _enter(self, process):
        self.processes.append(process)
        self.alive[process.me] = process

    # ---- faults -------------------------------------------------------------------------------

    def _two(self, fault):
        n = len(self.swarm.peers)
        return NAMES[fault.who % n], NAMES[(fault.who + 1 + fault.other % (n - 1)) % n]

    async def cut(self, fault, topic="exchange", length=MEETING_BYTES):
        opener, other = self._two(fault)
        sender = (opener, other)[fault.size % 2]
        self.swarm.network.cuts.append(Cut(opener, sender, fault.size % length, topic))

    async def cut_late(self, fault):
        """About where HAVE passed in the opener's last meeting: here questions arise."""
        opener, other = self._two(fault)
        peer = self.swarm.peers[NAMES.index(opener)]
        met = [event for event in peer.events if event.outcome == "ok"]
        if met:
            ways = (opener, met[-1].bytes_sent), (other, met[-1].bytes_received)
            sender, nbytes = ways[fault.size % 2]
            self.swarm.network.cuts.append(Cut(opener, sender, nbytes - 1 - fault.size % 23))

    async def sever(self, fault):
        """The line is dead: unlike a cut, nothing that is under way arrives any more."""
        name, _ = self._two(fault)
        for stream in list(self.swarm.network._streams.get(name, ())):
            for pipe in (stream._in, stream._out):
                pipe.under_way = deque([None] * len(pipe.under_way))
            stream.break_both()

    async def cut_ask(self, fault):
        await self.cut(fault, "ask", QUESTION_BYTES)

    async def freeze(self, fault):
        name, _ = self._two(fault)
        for_s = fault.size / 20
        self.swarm.network.freeze(name, for_s)
        if name in self.alive:
            self.alive[name].frozen_s += for_s

    async def crash(self, fault):
        name, _ = self._two(fault)
        if name in self.alive and len(self.alive) > 1:
            self.swarm.network.crash(name)
            del self.alive[name]

    async def save(self, fault):
        name, _ = self._two(fault)
        if name in self.alive:
            self.saved[name] = self.alive[name].save()

    async def restart(self, fault, saved=None):
        """A new process under the same id, at least a second after the old one."""
        name, _ = self._two(fault)
        await self.crash(fault)
        if name in self.alive:
            return
        await asyncio.sleep(1.5)
        index = NAMES.index(name)
        marks = {p.me: p.peer.gossip._round for p in self.alive.values()}
        peer = self.swarm.peers[index] = self.swarm.peer(index)
        peer.gossip._round += index * ROUNDS_EACH
        if saved is not None:
            peer.subject.live[:] = saved.live
            peer.started, peer.added = saved.started, saved.added.copy()
            peer.gossip.remember(saved.in_weights)
            peer.gossip.recall(saved.owed)
        self.swarm.network.restart(name)
        # An empty map would read as the first life of this peer.
        self._enter(Process(peer, {name: -1} | marks, saved))
        self.alive[name].frozen_s = 60.0
        await peer.start()

    async def resume(self, fault):
        """The same from a checkpoint, where there is one."""
        await self.restart(fault, self.saved.get(self._two(fault)[0]))

    async def partition(self, fault):
        wall = self._two(fault)
        self.swarm.network.partition(*wall)
        self.walls.append(wall)
        asyncio.get_running_loop().call_later(fault.size / 15, self.swarm.network.heal, *wall)

    # ---- judging ------------------------------------------------------------------------------

    async def _watch(self):
        """Bounded queues, at every moment."""
        while True:
            await asyncio.sleep(0.7)
            n = len(self.swarm.peers)
            assert len(asyncio.all_tasks()) <= 4 + MAX_TASKS * n
            for process in self.alive.values():
                gossip, desk = process.peer.gossip, process.peer.desk
                assert len(gossip.pending) <= MAX_PENDING
                assert len(desk._due) <= MAX_DUE
                assert len(gossip.window.waiters._news) <= MAX_KNOWN
                assert len(self.swarm.network._streams.get(process.me, ())) <= MAX_STREAMS

    def judge(self):
        books = {process: process.moved_by() for process in self.processes}
        self._nobody_applies_what_the_other_knows_to_have_failed(books)
        for process in self.alive.values():
            self._mean_law(process, books)
            self._not_stuck(process)

    def _nobody_applies_what_the_other_knows_to_have_failed(self, books):
        applied = {(p.me, *key) for p, book in books.items() for key in book}
        failed = {(partner, p.me, r) for p in self.processes for partner, r in p.failed()}
        assert not applied & failed

    def _mean_law(self, process, books):
        """Its book explains its weights, and each meeting's corrections cancel."""
        peer, book = process.peer, books[process]
        total = sum(book.values(), np.zeros_like(peer.started))
        assert np.abs(peer.subject.live - peer.started - peer.added - total).max() < LAW
        missing = 0
        for (partner, round_), move in book.items():
            other = self.alive.get(partner)
            if other is None:
                continue
            back = books[other].get((process.me, round_))
            if back is not None:
                assert np.abs(move + back).max() < LAW
            elif not (other.excuses((process.me, round_))):
                missing += 1
        given_up = sum(p.peer.gossip.pending.given_up for p in self.alive.values())
        assert missing <= given_up, "a correction is neither applied nor counted"

    def _not_stuck(self, process):
        awake = clock.now() - process.born - process.frozen_s
        assert process.peer.steps >= awake / SLOWEST_STEP_S - 3, "a peer stood still"


def unequal(links):
    """A link for each direction: where one payload is long there before the other, rules show."""

    def link(a, b):
        return links[(NAMES.index(a) + 2 * NAMES.index(b)) % len(links)]

    return link


async def weather(n, script, links, **options):
    swarm = Swarm(n, **options)
    swarm.network._link = unequal(links)
    storm = await Storm(swarm, script).run()
    storm.judge()
    return storm
