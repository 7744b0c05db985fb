"""The book of a run over real daemons: joining, leaving, the owner's orders."""

import asyncio
import time
from contextvars import ContextVar, copy_context

import pytest
from support import nodes, options, until

from swarmnet.events import ClockOff
from swarmnet.exchange.membership import Membership, Status
from swarmnet.net import directory, records
from swarmnet.net.node import Node
from swarmnet.net.phonebook import Phonebook, PhonebookOptions

RENEW_S = 0.5
FAST_S = ContextVar("FAST_S", default=0.0)
"""How far ahead the wall clock is, for a node and all the tasks that it starts."""


class Skewed:
    @staticmethod
    def time():
        return time.time() + FAST_S.get()


class Peer:
    """A node with its book and a state that the test sets; collects what the book reports."""

    def __init__(self, node, owner):
        self.node = node
        self.state = "training"
        self.view = Membership(node.me, RENEW_S)
        book = PhonebookOptions(RENEW_S, owner, wall=Skewed.time)
        self.book = Phonebook(node, self.view, self.status, book)
        self.orders, self.events = [], []
        self.book.on_order = self.orders.append
        self.book.on_event = self.events.append

    def status(self):
        return Status(incarnation=0, counter=0, state=self.state, tokens=5)

    def sees(self, *others, states=("training",)):
        return self.view.alive(time.monotonic(), states) == sorted(o.node.me for o in others)


async def open_books(started):
    peers = [Peer(node, started[0].me) for node in started]
    for peer in peers:
        await peer.book.start()
    return peers


def test_peers_see_each_other_and_a_change_of_state(tmp_path):
    async def main():
        async with nodes(tmp_path, 3) as started:
            one, two, three = peers = await open_books(started)
            await until(lambda: one.sees(two, three) and two.sees(one, three))
            await until(lambda: three.sees(one, two))
            two.state = "consensus"
            two.book.nudge()
            await until(lambda: one.sees(two, states=["consensus"]))
            assert one.view.status(two.node.me).tokens == 5
            seen = {(event.peer_id, event.alive) for event in one.events}
            assert seen == {(two.node.me, True), (three.node.me, True)}
            await asyncio.gather(*(peer.book.leave() for peer in peers))

    asyncio.run(main())


def test_whoever_leaves_is_gone_before_three_renewals(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as started:
            one, two = await open_books(started)
            await until(lambda: one.sees(two))
            await two.book.leave()
            await until(lambda: one.view.status(two.node.me).state == "left", 3.0)
            await until(lambda: one.events[-1].alive is False, 3.0)
            await one.book.leave()

    asyncio.run(main())


def test_whoever_falls_silent_is_gone_after_three_renewals(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as started:
            one, two = await open_books(started)
            await until(lambda: one.sees(two))
            two.book._task.cancel()
            await until(lambda: one.view.is_dead(two.node.me, time.monotonic()), 10.0)
            await until(lambda: one.events[-1].alive is False, 5.0)
            await one.book.leave()

    asyncio.run(main())


def test_a_second_life_is_newer_than_the_first(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as started:
            one, two = await open_books(started)
            await until(lambda: one.sees(two))
            await two.book.leave()
            await until(lambda: one.sees())
            again = Peer(two.node, started[0].me)
            await again.book.start()
            assert again.book.mine().incarnation > two.book.mine().incarnation
            await until(lambda: one.sees(again))
            await asyncio.gather(one.book.leave(), again.book.leave())

    asyncio.run(main())


def test_the_owners_orders_are_seen_in_order(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as started:
            owner, other = await open_books(started)
            await owner.book.command("pause")
            await until(lambda: other.book.order == "pause")
            await owner.book.command("run")
            await until(lambda: other.book.order == "run")
            await owner.book.command("end")
            await until(lambda: other.book.order == "end")
            assert owner.orders == other.orders == ["pause", "run", "end"]
            await asyncio.gather(owner.book.leave(), other.book.leave())

    asyncio.run(main())


def test_orders_of_others_are_ignored(tmp_path):
    async def main():
        async with nodes(tmp_path, 3) as started:
            owner, forger, other = await open_books(started)
            with pytest.raises(PermissionError):
                await forger.book.command("end")
            issued_ms = int(time.time() * 1000) + 1_000_000
            await forger.node.publish("control", {"order": "end", "issued_ms": issued_ms})
            await owner.book.command("pause")
            await until(lambda: other.book.order == "pause")
            assert other.orders == owner.orders == ["pause"]
            await asyncio.gather(*(peer.book.leave() for peer in (owner, forger, other)))

    asyncio.run(main())


def test_an_order_that_lags_behind_is_ignored(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as started:
            owner, other = await open_books(started)
            await owner.book.command("pause")
            await owner.book.command("run")
            await until(lambda: other.book._issued_ms == owner.book._issued_ms)
            lagging = {"order": "pause", "issued_ms": owner.book._issued_ms - 1}
            owner.book._task.cancel()
            await owner.node.publish("control", lagging)
            reads = other.book.reads + 2
            other.book.nudge()
            await until(lambda: other.book.reads >= reads)
            assert other.book.order == "run"
            await asyncio.gather(owner.book.leave(), other.book.leave())

    asyncio.run(main())


def test_signed_nonsense_is_ignored(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as started:
            one = Peer(started[0], started[0].me)
            await started[1].publish("peers", {"counter": "many", "state": "king"})
            await one.book.start()
            await one.book.leave()
            assert one.view.status(started[1].me) is None

    asyncio.run(main())


def test_clocks_ten_minutes_off_change_nothing_and_their_owners_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "time", Skewed)
    monkeypatch.setattr(records, "time", Skewed)

    async def main():
        peers, said, contexts = [], [], []
        try:
            for fast_s in (0.0, 600.0, -600.0):
                FAST_S.set(fast_s)
                bootstrap = peers[0].node.addresses if peers else ()
                node = await Node.start(options(tmp_path, f"key{fast_s}", bootstrap))
                said.append([])
                node.on_event = said[-1].append
                peers.append(Peer(node, peers[0].node.me if peers else node.me))
                contexts.append(copy_context())
            loop = asyncio.get_running_loop()
            await asyncio.gather(
                *(
                    loop.create_task(peer.book.start(), context=context)
                    for peer, context in zip(peers, contexts, strict=True)
                )
            )
            for peer in peers:
                others = [other for other in peers if other is not peer]
                await until(lambda peer=peer, others=others: peer.sees(*others))
            reads = [peer.book.reads + 4 for peer in peers]
            await until(lambda: all(p.book.reads >= n for p, n in zip(peers, reads, strict=True)))
            assert all(event.alive for peer in peers for event in peer.events)
            await until(lambda: said[1] and said[2])
            assert said[0] == []
            for [event], fast in zip(said[1:], (True, False), strict=True):
                assert isinstance(event, ClockOff)
                assert (event.ahead_s > 500, event.ahead_s < -500) == (fast, not fast)
                assert event.peers == 2
            await peers[0].book.command("pause")
            await until(lambda: all(peer.book.order == "pause" for peer in peers))
            await peers[1].book.leave()
            await until(lambda: peers[2].view.status(peers[1].node.me).state == "left")
            await asyncio.gather(*(peer.book.leave() for peer in peers))
        finally:
            await asyncio.gather(*(peer.node.close() for peer in peers))

    asyncio.run(main())


def test_leaving_is_quick_when_everybody_else_is_gone(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as started:
            one, two = await open_books(started)
            await until(lambda: one.sees(two))
            await two.node.close()
            began = time.monotonic()
            await one.book.leave()
            await one.node.close()
            assert time.monotonic() - began < 4.5

    asyncio.run(main())
