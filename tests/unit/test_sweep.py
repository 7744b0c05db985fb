"""What a change of members moves, what is read twice, and what nobody reads."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from swarmnet.sharing import ALONE, BlockRead, Ground, Span
from swarmnet.sharing._order import permuted
from swarmnet.sharing._sweep import MAX_GONE, Sweep
from swarmnet.sharing.rendezvous import Rendezvous

BLOCKS = 4000
PEERS = [f"peer-{i}" for i in range(8)]


def view(peers, me: str, **spans: Span):
    return {p: spans.get(p.replace("-", "_"), Span()) for p in peers if p != me}


def shares(peers) -> dict[str, set[int]]:
    """Everybody's places of the first epoch, under a view that does not change."""
    found = {}
    for me in peers:
        sweep = Sweep(me, 7, BLOCKS)
        sweep.see(view(peers, me))
        places = set()
        while (place := sweep.next()) < BLOCKS:
            places.add(place)
        found[me] = places
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000, 4097])
def test_a_permutation_takes_every_place_once(size: int) -> None:
    one, other = (permuted(np.arange(size), size, key) for key in (1, 2))
    assert sorted(one.tolist()) == sorted(other.tolist()) == list(range(size))
    if size > 3:
        assert one.tolist() != other.tolist()


def test_shares_are_even_and_hold_every_block_once() -> None:
    found = shares(PEERS)
    counts = Counter(place for places in found.values() for place in places)
    assert set(counts) == set(range(BLOCKS))
    assert set(counts.values()) == {1}
    even = BLOCKS / len(PEERS)
    assert all(abs(len(places) - even) < 5 * even**0.5 for places in found.values())


def test_a_leaver_moves_its_own_share_and_nothing_else() -> None:
    before, after = shares(PEERS), shares(PEERS[1:])
    for peer in PEERS[1:]:
        assert before[peer] <= after[peer]
        assert after[peer] - before[peer] <= before["peer-0"]


def test_a_joiner_takes_its_own_share_and_nothing_else() -> None:
    before, after = shares(PEERS[1:]), shares(PEERS)
    for peer in PEERS[1:]:
        assert before[peer] - after[peer] <= after["peer-0"]
        assert after[peer] <= before[peer]
    assert len(after["peer-0"]) == pytest.approx(BLOCKS / len(PEERS), rel=0.2)


def test_the_next_epoch_deals_shares_anew() -> None:
    sweep = Sweep("peer-0", 7, BLOCKS)
    sweep.see(view(PEERS, "peer-0"))
    places = [sweep.next() for _ in range(1200)]
    first = {p for p in places if p < BLOCKS}
    second = {p - BLOCKS for p in places if BLOCKS <= p < 2 * BLOCKS}
    assert len(first & second) < 0.5 * min(len(first), len(second))


def test_whoever_leaves_is_replaced_from_where_it_stopped() -> None:
    """The heirs are ahead of a slow peer that leaves: they turn back for what it had not read."""
    heirs = {me: Sweep(me, 7, BLOCKS) for me in PEERS[1:]}
    read = set()
    for me, sweep in heirs.items():
        sweep.see(view(PEERS, me))
        while sweep.at < 2000:
            read.add(sweep.next())
    unread = {p for p in shares(PEERS)["peer-0"] if 500 <= p < 1900}
    assert not read & unread
    for me, sweep in heirs.items():
        sweep.see(view(PEERS, me, peer_0=Span(0, 500)))
        sweep.see(view(PEERS[1:], me))
    again = [place for sweep in heirs.values() for place in (sweep.next() for _ in range(200))]
    assert unread <= set(again)
    assert max(Counter(again).values()) == 1
    assert not read & {p for p in again if p < 2000}


def test_whoever_left_ahead_of_its_heirs_leaves_nothing_behind() -> None:
    found = shares(PEERS)
    sweep = Sweep("peer-1", 7, BLOCKS)
    sweep.see(view(PEERS, "peer-1", peer_0=Span(0, 900)))
    sweep.see(view(PEERS[1:], "peer-1"))
    places = [sweep.next() for _ in range(400)]
    assert not [p for p in places if p in found["peer-0"] and p < 900]
    assert [p for p in places if p in found["peer-0"] and p >= 900]


def test_who_returns_takes_back_what_nobody_read_for_it() -> None:
    sweep = Sweep("peer-1", 7, BLOCKS)
    sweep.see(view(PEERS, "peer-1"))
    kept = [sweep.next() for _ in range(100)]
    twin = Sweep("peer-1", 7, BLOCKS)
    twin.see(view(PEERS, "peer-1"))
    for step, place in enumerate(kept):
        assert twin.next() == place
        if step % 10 == 5:
            twin.see(view(PEERS[1:], "peer-1"))
            twin.see(view(PEERS, "peer-1"))
    assert twin.position() | {"others": 0} == sweep.position() | {"others": 0}


def test_who_comes_back_further_on_leaves_nothing_behind_and_takes_nothing_twice() -> None:
    """A quick restart: nobody noticed that it was gone, yet it no longer reads what was its own."""
    found = shares(PEERS)
    heirs = {me: Sweep(me, 7, BLOCKS) for me in PEERS[1:]}
    read: Counter[int] = Counter()
    for me, sweep in heirs.items():
        sweep.see(view(PEERS, me, peer_0=Span(0, 400)))
        while sweep.at < 1000:
            read[sweep.next()] += 1
    back = Sweep("peer-0", 7, BLOCKS)
    back.follow(1000)
    back.see(view(PEERS, "peer-0"))
    for me, sweep in heirs.items():
        sweep.see(view(PEERS, me, peer_0=Span(1000, 1000)))
    for sweep in (back, *heirs.values()):
        while sweep.at < BLOCKS:
            read[sweep.next()] += 1
    assert {p for p in range(BLOCKS) if not read[p]} == {p for p in found["peer-0"] if p < 400}
    assert all(times == 1 for place, times in read.items() if place < BLOCKS)


def test_a_joiner_counts_from_where_it_began() -> None:
    sweep, found = Sweep("peer-1", 7, BLOCKS), shares(PEERS)
    sweep.see(view(PEERS, "peer-1", peer_0=Span(1000, 1000)))
    places = {sweep.next() for _ in range(300)}
    own = {p for p in places if p in found["peer-0"]}
    assert own
    assert max(own) < 1000


def test_a_liar_makes_nobody_turn_back_further_than_an_epoch() -> None:
    sweep = Sweep("peer-1", 7, BLOCKS)
    sweep.follow(10 * BLOCKS)
    sweep.since = 0
    sweep.see({"liar": Span(0, 0), "boaster": Span(0, 2**62 - 1)})
    sweep.see(ALONE)
    assert all(start >= 9 * BLOCKS for start, *_ in sweep.position()["back"])


def test_who_is_gone_is_forgotten() -> None:
    sweep = Sweep("me", 7, BLOCKS)
    for i in range(3 * MAX_GONE):
        sweep.see({f"peer-{i}": Span(0, 5000 + i)})
    assert len(sweep.position()["others"]) <= MAX_GONE + 2


def epoch(peers, tokens: int = 50_001, length: int = 16, sequences: int = 8) -> list[BlockRead]:
    """Peers that take turns until each has come past the first epoch."""
    readers = {p: Rendezvous(Rendezvous.Config(), Ground(tokens, length, 3, p)) for p in peers}
    seen: Counter[int] = Counter()
    done: list[BlockRead] = []
    while any(r.span.read < 261 for r in readers.values()):
        now = {p: r.span for p, r in readers.items()}
        for reader in readers.values():
            seen.update((reader.next(sequences, now) // length).tolist())
            done += reader.finished()
    assert max(seen.values()) <= 3
    return [read for read in done if read.epoch == 0]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_equal_peers_read_every_block_once_an_epoch(n: int) -> None:
    done = epoch(PEERS[:n])
    assert len(done) == len({read.block for read in done}) == done[0].of


def test_an_epoch_begins_at_another_token_and_holds_every_window() -> None:
    reader = Rendezvous(Rendezvous.Config(), Ground(2000, 16, 3, "me"))
    windows = (2000 - 16) // 16
    epochs = [reader.next(windows, ALONE) for _ in range(4)]
    for starts in epochs:
        shift = starts % 16
        assert len({*shift.tolist()}) == 1
        assert sorted(starts.tolist()) == [shift[0] + 16 * i for i in range(windows)]
    assert len({int(starts[0] % 16) for starts in epochs}) > 1
