"""Peers that meet in groups and nothing else: the real circle around plain vectors, and faults."""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from swarmnet.errors import PayloadError, StreamCut
from swarmnet.exchange.circle import Circle
from swarmnet.exchange.desk import Snapshot
from swarmnet.exchange.gather import Aim
from swarmnet.exchange.ledger import Open, Pending
from swarmnet.exchange.links import Links
from swarmnet.exchange.pair import End
from swarmnet.exchange.payload import Outgoing
from swarmnet.exchange.questions import TOPIC as ASK
from swarmnet.exchange.questions import Questions
from swarmnet.exchange.subject import Correction
from swarmnet.sim import clock
from swarmnet.sim.network import SimNetwork, SimStream
from swarmnet.wire import Kind
from swarmnet.wire.messages import Decline

LAW = 1e-12
NAMES = [f"peer{letter * 8}" for letter in "ABCDEFGHJKLMNPQRSTUVWXYZ"]
PART = 3
"""Values per part; the last part is shorter."""


class Weighted:
    """A vector in parts whose group mean is weighted by work, like a displacement's."""

    steps_alone = False
    whole = False
    ready_made = True
    quick = True

    def __init__(self, vector):
        self.live = vector.copy()
        self.layout = "ab"
        self.nbytes = vector.nbytes
        self.parts = -(-len(vector) // PART)
        self.blended = []

    def span(self, part):
        return slice(part * PART, (part + 1) * PART)

    def part_nbytes(self, part):
        return self.live[self.span(part)].nbytes

    def encode(self, snapshot, part):
        return memoryview(snapshot[self.span(part)].tobytes())

    def blend(self, snapshot, me, works):
        self.blended.append(dict(works))
        return WeightedBlend(self, snapshot, me, works)


class WeightedBlend:
    def __init__(self, subject, own, me, works):
        self._subject, self._own, self._me, self._works = subject, own, me, works
        self._correction = np.zeros_like(own)
        self._seen = set()

    def _mean(self, part, payloads):
        assert part not in self._seen
        assert set(payloads) | {self._me} == set(self._works)
        vectors = {peer: floats(payload) for peer, payload in payloads.items()}
        vectors[self._me] = self._own[self._subject.span(part)]
        total = sum(self._works.values())
        return sum(vectors[peer] * (self._works[peer] / total) for peer in sorted(vectors))

    def take(self, part, payloads):
        mean = self._mean(part, payloads)
        self._settle(part, mean)

    def fuse(self, part, payloads):
        return memoryview(self._mean(part, payloads).tobytes())

    def adopt(self, part, mean):
        self._settle(part, floats(mean))

    def _settle(self, part, mean):
        assert part not in self._seen
        self._seen.add(part)
        span = self._subject.span(part)
        self._correction[span] = mean - self._own[span]

    def finish(self):
        return Correction(self._correction, 0.0)


def floats(payload):
    vector = np.frombuffer(payload)
    if not np.isfinite(vector).all():
        raise PayloadError("not finite")
    return vector


class Peer:
    """One peer: a host for its circle that applies at once, and its open questions."""

    def __init__(self, me, network, vector, work, latest_s):
        self.me = me
        self.subject = Weighted(vector)
        self.before = vector.copy()
        self.work = work
        self.claims = ()
        self.counted = set()
        self.busy = False
        self.out = None
        self.minutes = []
        self.late = []
        self.crashed = False
        self._round = 1 << 24
        self._network = network
        links = Links()
        if latest_s is not None:
            links.deadline_s = lambda peer: latest_s
        self.tools = SimpleNamespace(
            transport=network.transport(me), links=links, offload=inline, clock=clock.now
        )
        self.circle = Circle(self.tools, self)
        self.questions = Questions(self.tools.transport, links, Pending(), self._apply_late)
        self.questions.groups = self.circle.answer

    async def open(self):
        await self.circle.open()
        await self.tools.transport.serve(ASK, self.questions.serve)

    def lead(self, others, size=None, quorum=None, patience_s=5.0):
        size = size or len(others) + 1
        aim = Aim(tuple(others), size, quorum or size, patience_s)
        task = asyncio.create_task(self.circle.lead(aim, "train"))
        self._network.own(self.me, task)
        self.leading = task
        return task

    async def keep_asking(self, gone):
        """What the driver does once a window, but faster."""
        while True:
            await asyncio.sleep(0.7)
            await self.questions.ask_all(gone())

    # ---- the host ---------------------------------------------------------------------------

    def welcome(self, peer, call):
        return Decline(reason="early", retry_s=0.3) if self.busy else None

    def heard(self, peer, digest):
        pass

    def digest(self):
        return None

    def unreachable(self, peer):
        pass

    def number(self):
        self._round += 1
        return self._round

    def committed(self, sample):
        return sample in self.counted

    def take(self):
        assert self.out is None, "two snapshots out at once"
        self.out = Snapshot(0, self.subject.live.copy())
        return Outgoing(self.subject, self.out, inline), self.work, self.claims

    def conclude(self, minutes):
        self.minutes.append(minutes)
        self.out = None
        if minutes.end is End.APPLIED:
            self.subject.live += minutes.correction.vector
        if minutes.end is End.PENDING:
            others = tuple(p for p in minutes.works if p not in (self.me, minutes.leader))
            vector = minutes.correction.vector
            self.questions.pending.add(
                Open(minutes.leader, minutes.number, vector, 0, witnesses=others)
            )

    def _apply_late(self, item, correction):
        self.subject.live += correction
        self.late.append((item.peer, item.round))
        self.circle.decisions.commit(item.peer, item.round)

    # ---- what happened ----------------------------------------------------------------------

    @property
    def end(self):
        return self.minutes[-1].end if self.minutes else None

    def applied(self):
        met = [(m.leader, m.number) for m in self.minutes if m.end is End.APPLIED]
        return [*met, *self.late]


async def inline(function, *arguments):
    return function(*arguments)


class Company:
    """``n`` peers with random vectors; nobody leads until the test says so."""

    def __init__(self, n, values=23, seed=0, works=None, link=None, latest_s=None):
        random = np.random.default_rng(seed)
        self.network = SimNetwork(link) if link else SimNetwork()
        works = works or [1] * n
        self.peers = [
            Peer(NAMES[i], self.network, random.normal(size=values), works[i], latest_s)
            for i in range(n)
        ]

    async def open(self):
        for peer in self.peers:
            await peer.open()
        return self

    def __getitem__(self, name):
        return self.peers[NAMES.index(name)]

    @property
    def names(self):
        return [peer.me for peer in self.peers]

    @property
    def alive(self):
        return [peer for peer in self.peers if not peer.crashed]

    def crash(self, name):
        self[name].crashed = True
        self.network.crash(name)

    async def meet(self, leader=0, **options):
        chief = self.peers[leader]
        others = [peer.me for peer in self.peers if peer is not chief]
        return await chief.lead(others, **options)

    async def settle(self):
        """Let what is under way end, then let open questions be asked."""
        await asyncio.sleep(60)
        gone = {peer.me for peer in self.peers if peer.crashed}
        for _ in range(3):
            for peer in self.alive:
                await peer.questions.ask_all(gone)
            await asyncio.sleep(20)

    def judge(self):
        """What must hold after any fault, once everything has settled."""
        network = self.network
        assert network.bugs == []
        for peer in self.alive:
            assert peer.circle.free, f"{peer.me} is left marked busy"
            assert peer.out is None
            assert not peer.circle.decisions._open
            assert len(peer.applied()) == len(set(peer.applied())), "applied twice"
            assert not network._streams.get(peer.me), "a stream was left open"
        applied = {peer.me: set(peer.applied()) for peer in self.alive}
        for key, members in self.groups().items():
            mine = {m: key in applied[m] for m in members if m in applied}
            open_ = [
                peer.me
                for peer in self.alive
                if any((i.peer, i.round) == key for i in peer.questions.pending._open)
            ]
            known = {m: yes for m, yes in mine.items() if m not in open_}
            assert len(set(known.values())) <= 1, f"{key}: {known}"
            if open_:
                assert self[key[0]].crashed, "only a dead leader leaves a question open"
                assert not any(known.values()), "a witness knew, and was not asked"

    def groups(self):
        """(leader, number) -> the members of that decision, as anybody who applied saw it."""
        return {
            (m.leader, m.number): tuple(m.works)
            for peer in self.peers
            for m in peer.minutes
            if m.end in (End.APPLIED, End.PENDING)
        }

    def ends(self):
        return Counter(peer.end for peer in self.alive)

    def expected(self, chosen, seated):
        """Weighted mean over ``chosen``, in the parts whose owner is among them."""
        works = {name: self[name].work for name in chosen}
        total = sum(works.values())
        mean = sum(self[name].before * (works[name] / total) for name in chosen)
        values = {name: self[name].before.copy() for name in chosen}
        for name in chosen:
            for part in range(self[name].subject.parts):
                owner = seated[part % len(seated)]
                if len(seated) <= 4 or owner in chosen:
                    span = self[name].subject.span(part)
                    values[name][span] = mean[span]
        return values


def check_mean(company):
    """Everybody who applied holds the mean over exactly the set that was decided."""
    for peer in company.alive:
        for minutes in peer.minutes:
            if (minutes.leader, minutes.number) not in peer.applied():
                continue
            expected = company.expected(tuple(minutes.works), minutes.members)[peer.me]
            assert np.abs(peer.subject.live - expected).max() < LAW
    if all(peer.work == 1 for peer in company.peers) and not any(
        peer.crashed for peer in company.peers
    ):
        moved = sum(peer.subject.live - peer.before for peer in company.peers)
        assert np.abs(moved).max() < LAW


@dataclass
class Fault:
    """Strikes at the n-th frame that anybody sends; beats do not count."""

    at: int
    kind: str
    seen: Kind | None = None


def strike(monkeypatch, company, *faults):
    """From here on the company's network has these faults in it."""
    send, count = SimStream.send, itertools.count()

    async def sending(stream, frame, deadline_s):
        if frame.kind is not Kind.BEAT and not company.network.is_down(stream._me):
            sent = next(count)
            for fault in faults:
                if fault.at == sent:
                    fault.seen = frame.kind
                    await hurt(company, fault.kind, stream)
        await send(stream, frame, deadline_s)

    monkeypatch.setattr(SimStream, "send", sending)


async def hurt(company, kind, stream):
    network, sender, receiver = company.network, stream._me, stream._peer
    match kind:
        case "cut":
            stream.break_both()
            raise StreamCut("struck")
        case "sender dies":
            company.crash(sender)
            await asyncio.sleep(0)
            raise StreamCut("struck")
        case "receiver dies":
            company.crash(receiver)
        case "leader dies":
            company.crash(NAMES[0])
            await asyncio.sleep(0)
        case "leader stops":
            company.peers[0].leading.cancel()
        case "sender freezes":
            network.freeze(sender, 15.0)
        case "receiver freezes":
            network.freeze(receiver, 15.0)


KINDS = (
    "cut",
    "sender dies",
    "receiver dies",
    "leader dies",
    "leader stops",
    "sender freezes",
    "receiver freezes",
)
