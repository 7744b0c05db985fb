"""The phone book in virtual time: lives that follow each other, clocks apart, looks saved."""

import asyncio
from dataclasses import replace

import pytest

from swarmnet.errors import LinkError
from swarmnet.events import PeerSeen, ViewSeen
from swarmnet.exchange.lookout import LATEST_RENEWALS
from swarmnet.exchange.membership import Membership, Status
from swarmnet.net.phonebook import Phonebook, PhonebookOptions
from swarmnet.sim import clock

RENEW_S = 10.0
ANN, BOB, CAT = "12D3KooWann", "12D3KooWbob", "12D3KooWcat"
WALL = 1_700_000_000.0


class Shelf:
    """The DHT: everybody's newest entry of each record. Counts looks by reader and record."""

    def __init__(self):
        self.entries = {"peers": {}, "control": {}}
        self.looks = []
        self.broken = False

    def looks_of(self, peer, key):
        return self.looks.count((peer, key))


class Door:
    """One peer's access to the shelf (implements ``Records``)."""

    def __init__(self, me, shelf):
        self.me, self.addresses = me, [f"/ip4/127.0.0.1/tcp/1/p2p/{me}"]
        self.relaying = False
        self._shelf = shelf
        self.learned = {}

    def learn(self, peer, addresses, *, relays):
        self.learned[peer] = addresses, relays

    def forget(self, peer):
        self.learned.pop(peer, None)

    async def publish(self, key, body):
        self._shelf.entries[key][self.me] = dict(body)

    async def lookup(self, key):
        self._shelf.looks.append((self.me, key))
        if self._shelf.broken:
            raise LinkError("cut off")
        return {peer: dict(body) for peer, body in self._shelf.entries[key].items()}


class Peer:
    def __init__(self, me, shelf, wall_s=0.0, owner=ANN):
        self.me, self.state = me, "training"
        self.view = Membership(me, RENEW_S)
        self.door = Door(me, shelf)
        options = PhonebookOptions(RENEW_S, owner, clock.now, lambda: WALL + wall_s + clock.now())
        self.book = Phonebook(self.door, self.view, self.status, options)
        self.events, self.orders = [], []
        self.book.on_event, self.book.on_order = self.events.append, self.orders.append

    def status(self):
        return Status(incarnation=0, counter=0, state=self.state)

    def alive(self):
        return self.view.alive(clock.now())

    def meet(self, other):
        """Two frames, one each way, as in any meeting."""
        now = clock.now()
        other.view.hear(self.me, self.view.digest(self.book.mine(), now), now)
        self.view.hear(other.me, other.view.digest(other.book.mine(), now), now)


async def started(shelf, *names, **options):
    peers = [Peer(name, shelf, **options) for name in names]
    for peer in peers:
        await peer.book.start()
    await asyncio.sleep(RENEW_S + 1.0)
    return peers


async def chat(peers, seconds):
    """Everybody meets the next one every two seconds."""
    for _ in range(int(seconds / 2)):
        await asyncio.sleep(2.0)
        for one, other in zip(peers, peers[1:] + peers[:1], strict=True):
            one.meet(other)


def test_where_digests_flow_the_book_stays_shut_and_nobody_is_lost():
    async def main():
        shelf = Shelf()
        peers = await started(shelf, ANN, BOB, CAT)
        before = [peer.book.reads for peer in peers]
        await chat(peers, 60 * RENEW_S)
        reads = [peer.book.reads - old for peer, old in zip(peers, before, strict=True)]
        assert all(60 / LATEST_RENEWALS - 1 <= count <= 60 / LATEST_RENEWALS + 2 for count in reads)
        lost = [e for p in peers for e in p.events if isinstance(e, PeerSeen) and not e.alive]
        assert lost == []

    clock.run(main())


def test_where_none_flow_the_book_alone_keeps_all_alive():
    async def main():
        peers = await started(Shelf(), ANN, BOB, CAT)
        before = peers[0].book.reads
        await asyncio.sleep(60 * RENEW_S)
        assert 20 <= peers[0].book.reads - before <= 61
        lost = [e for p in peers for e in p.events if isinstance(e, PeerSeen) and not e.alive]
        assert lost == []

    clock.run(main())


@pytest.mark.parametrize("state", ["syncing", "consensus", "serving"])
def test_who_does_not_train_reads_at_every_renewal(state):
    async def main():
        peers = await started(Shelf(), ANN, BOB)
        peers[0].state = state
        before = peers[0].book.reads
        await chat(peers, 20 * RENEW_S)
        assert 19 <= peers[0].book.reads - before <= 21

    clock.run(main())


def test_a_newcomer_is_found_by_rumour_and_looked_up_within_two_renewals():
    async def main():
        shelf = Shelf()
        peers = await started(shelf, ANN, BOB)
        await chat(peers, 25.0)
        newcomer = Peer(CAT, shelf)
        await newcomer.book.start()
        newcomer.meet(peers[0])
        peers[0].meet(peers[1])
        await chat(peers, 2 * RENEW_S)
        assert CAT in peers[0].alive()
        assert CAT in peers[1].alive()
        assert peers[1].door.learned[CAT] == (newcomer.door.addresses, False)

    clock.run(main())


def test_who_left_is_found_out_after_one_failed_call():
    async def main():
        peers = await started(Shelf(), ANN, BOB, CAT)
        await chat(peers, 25.0)
        await peers[2].book.leave()
        peers[0].view.suspect(CAT, clock.now())
        await chat(peers[:2], RENEW_S + 2)
        assert peers[0].view.status(CAT).state == "left"
        assert peers[0].events[-1] == PeerSeen(CAT, alive=False)

    clock.run(main())


def test_orders_arrive_within_three_renewals_while_the_book_is_shut():
    async def main():
        shelf = Shelf()
        peers = await started(shelf, ANN, BOB, CAT)
        await chat(peers, 35.0)
        for order in ("pause", "run", "pause", "end"):
            await peers[0].book.command(order)
            await chat(peers, 3 * RENEW_S)
            assert {peer.book.order for peer in peers} == {order}
        looks = shelf.looks_of(BOB, "control")
        await chat(peers, 20 * RENEW_S)
        assert shelf.looks_of(BOB, "control") - looks <= 12

    clock.run(main())


def test_a_word_is_newer_than_every_word_before():
    async def main():
        [peer] = await started(Shelf(), ANN)
        words = [peer.book.mine() for _ in range(5)]
        await asyncio.sleep(1.0)
        words.append(peer.book.mine())
        counters = [word.counter for word in words]
        assert counters == sorted(set(counters))
        assert counters[-1] - counters[0] == pytest.approx(1000, abs=10)

    clock.run(main())


@pytest.mark.parametrize("back_s", [0.0, 600.0, 86400.0])
def test_a_second_life_is_newer_though_the_clock_was_set_back(back_s):
    async def main():
        shelf = Shelf()
        ann, bob = await started(shelf, ANN, BOB)
        await bob.book.leave()
        again = Peer(BOB, shelf, wall_s=-back_s)
        await again.book.start()
        assert again.book.mine().incarnation > bob.book.mine().incarnation
        await asyncio.sleep(2 * RENEW_S)
        assert ann.alive() == [BOB]

    clock.run(main())


def test_a_life_that_began_cut_off_goes_above_its_earlier_one_later():
    async def main():
        shelf = Shelf()
        ann, bob = await started(shelf, ANN, BOB)
        await bob.book.leave()
        old = dict(shelf.entries["peers"][BOB])
        again = Peer(BOB, shelf, wall_s=-600.0)
        shelf.broken = True
        await again.book.start()
        await asyncio.sleep(0.1)
        shelf.broken = False
        shelf.entries["peers"][BOB] = old  # the DHT prefers the later expiry of the first life
        await asyncio.sleep(3 * RENEW_S)
        assert again.book.mine().incarnation > old["incarnation"]
        assert ann.alive() == [BOB]

    clock.run(main())


def test_clocks_ten_minutes_apart_change_nothing():
    def story(walls):
        async def main():
            shelf = Shelf()
            peers = [Peer(n, shelf, wall_s=w) for n, w in zip((ANN, BOB, CAT), walls, strict=True)]
            for peer in peers:
                await peer.book.start()
            seen = []
            for second in range(300):
                await asyncio.sleep(1.0)
                if second == 100:
                    await peers[2].book.leave()
                if second == 150:
                    peers[2] = Peer(CAT, shelf, wall_s=walls[2] - 600.0)
                    await peers[2].book.start()
                if second % 3 == 0 and not 100 <= second < 150:
                    peers[0].meet(peers[2])
                peers[0].meet(peers[1])
                seen.append([(peer.alive(), peer.book.reads) for peer in peers])
            return seen

        return clock.run(main())

    assert story((0.0, 0.0, 0.0)) == story((0.0, 600.0, -600.0)) == story((600.0, -600.0, 0.0))


def test_the_age_of_the_view_is_reported_now_and_then():
    async def main():
        peers = await started(Shelf(), ANN, BOB, CAT)
        await chat(peers, 100.0)
        seen = [event for event in peers[0].events if isinstance(event, ViewSeen)]
        assert 2 <= len(seen) <= 4
        assert seen[-1].peers == 2
        assert 0.0 <= seen[-1].age_median_s <= seen[-1].age_max_s < RENEW_S
        assert seen[-1].reads == pytest.approx(peers[0].book.reads, abs=2)

    clock.run(main())


def test_an_entry_of_the_wrong_shape_is_no_peer():
    async def main():
        shelf = Shelf()
        ann, bob = await started(shelf, ANN, BOB)
        word = vars(replace(bob.book.mine(), incarnation=2**61))
        shelf.entries["peers"][CAT] = word | {"state": "king", "addresses": []}
        await asyncio.sleep(LATEST_RENEWALS * RENEW_S)
        assert ann.alive() == [BOB]

    clock.run(main())
