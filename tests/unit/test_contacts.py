"""Whom a node knows, whom it misses, and how far its clock is from the others'."""

import random
from itertools import pairwise

import pytest
from multiaddr import Multiaddr

from swarmnet.errors import AddressError
from swarmnet.net import addressbook
from swarmnet.net.absences import AT_ONCE, LOST, Absences, Pauses
from swarmnet.net.addressbook import MAX_PEERS, Book, Entry
from swarmnet.net.contacts import Contacts
from swarmnet.net.paths import Paths
from swarmnet.net.skew import Skew
from swarmnet.wire.invite import parse_address, peer_of

ME, ANN, BOB, CAT = (f"12D3KooW{name}" + "x" * 20 for name in ("Me", "Ann", "Bob", "Cat"))
IDS = (
    "12D3KooWJHy9hFHhcceyL1uYQUz86yiQFmN8Sga3xBRr1qSquziA",
    "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtF",
)
RELAY, HIDDEN = IDS
RUN = "ab" * 16


def entry(peer, met=1.0, address="/ip4/45.77.0.9/tcp/4001", relays=False):
    return Entry(peer=peer, addresses=(address,), met=met, relays=relays)


def at(address):
    return [Multiaddr(address)]


# ---- the file --------------------------------------------------------------------------------


def test_a_book_is_read_as_it_was_written(tmp_path):
    book = Book(run=RUN, reach="private", port=4001, peers=(entry(ANN, relays=True), entry(BOB)))
    addressbook.save(tmp_path / "a.json", book)
    assert addressbook.load(tmp_path / "a.json", RUN) == book
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_another_runs_book_is_not_used(tmp_path):
    addressbook.save(tmp_path / "a.json", Book(run=RUN, port=4001, peers=(entry(ANN),)))
    assert addressbook.load(tmp_path / "a.json", "cd" * 16) == Book(run="cd" * 16)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b'{"run": "ab", "peers": [',
        b'{"run": "ab", "port": 70000}',
        b'{"run": "ab", "peers": [{"peer": "x"}]}',
        b'{"run": "ab", "secret": 1}',
        Book(run=RUN, peers=(entry(ANN, address="nowhere"),)).model_dump_json().encode(),
        b" " * (addressbook.MAX_BYTES + 1),
    ],
)
def test_a_book_that_does_not_hold_is_begun_anew_with_one_warning(tmp_path, caplog, raw):
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    assert addressbook.load(path, RUN) == Book(run=RUN)
    assert len(caplog.records) == 1
    assert "\n" not in caplog.text.strip()


def test_a_full_book_stays_below_its_bound(tmp_path):
    far = "/ip6/2001:db8:1111:2222:3333:4444:5555:6666/tcp/65535/p2p/" + "x" * 130
    peers = tuple(
        Entry(peer="1" * 100 + f"{n:04d}".replace("0", "a"), addresses=(far[:200],) * 4, met=1e10)
        for n in range(MAX_PEERS)
    )
    addressbook.save(tmp_path / "a.json", Book(run=RUN, peers=peers))
    assert (tmp_path / "a.json").stat().st_size < addressbook.MAX_BYTES


def test_a_disk_that_refuses_loses_the_book_and_nothing_else(tmp_path):
    addressbook.save(tmp_path / "no" / "a.json", Book(run=RUN))


# ---- contacts --------------------------------------------------------------------------------


def test_the_way_in_is_the_invite_then_the_book_newest_first():
    bootstrap = f"/ip4/45.77.0.2/tcp/1/p2p/{RELAY}"
    book = [entry(ANN, 1.0), entry(BOB, 3.0), entry(CAT, 2.0), entry(ME, 9.0)]
    contacts = Contacts(ME, [bootstrap], book)
    assert contacts.ways_in() == [RELAY, BOB, CAT, ANN]


def test_a_peers_own_word_is_remembered_before_what_its_connection_showed():
    contacts = Contacts(ME, [])
    assert contacts.meet({ANN: at("/ip4/45.77.0.9/tcp/33333")}, 5.0)
    assert not contacts.meet({ANN: at("/ip4/45.77.0.9/tcp/33333")}, 6.0)
    contacts.learn(RELAY, [f"/ip4/45.77.0.8/tcp/4001/p2p/{RELAY}", "nonsense"], relays=False)
    assert contacts.meet({RELAY: at("/ip4/45.77.0.8/tcp/55555")}, 7.0)
    assert [e.peer for e in contacts.entries()] == [RELAY, ANN]
    assert contacts.entries()[0].addresses == ("/ip4/45.77.0.8/tcp/4001",)


def test_nobody_is_dialled_at_an_address_that_names_another():
    contacts = Contacts(ME, [])
    contacts.learn(HIDDEN, [f"/ip4/45.77.0.8/tcp/4001/p2p/{RELAY}"], relays=False)
    assert contacts.where(HIDDEN) == []


def test_who_left_is_not_missed_until_it_says_that_it_is_back():
    contacts = Contacts(ME, [])
    contacts.meet({ANN: at("/ip4/45.77.0.9/tcp/1")}, 1.0)
    contacts.forget(ANN)
    contacts.meet({ANN: at("/ip4/45.77.0.9/tcp/1")}, 2.0)
    assert contacts.wanted() == []
    contacts.learn(ANN, [], relays=False)
    contacts.meet({ANN: at("/ip4/45.77.0.9/tcp/1")}, 3.0)
    assert contacts.wanted() == [ANN]


def test_who_only_published_is_missed_after_those_whom_we_met():
    contacts = Contacts(ME, [])
    contacts.learn(BOB, [], relays=False)
    contacts.meet({ANN: at("/ip4/45.77.0.9/tcp/1")}, 1.0)
    assert contacts.wanted() == [ANN]
    contacts.learn(RELAY, [f"/ip4/45.77.0.8/tcp/4001/p2p/{RELAY}"], relays=False)
    assert contacts.wanted() == [ANN, RELAY]


def test_a_relay_is_named_once_and_only_while_it_is_there():
    far = [f"/ip4/45.77.0.2/tcp/1/p2p/{RELAY}", f"/ip4/45.77.0.2/tcp/2/p2p/{RELAY}"]
    contacts = Contacts(ME, far, [entry(ANN, relays=True), entry(BOB)])
    way = "/ip4/45.77.0.9/tcp/7"
    near = at(way) + at("/ip4/45.77.0.9/tcp/8")
    assert contacts.relays({ANN: near, BOB: near}) == (f"{way}/p2p/{ANN}",)
    assert contacts.relays({RELAY: near}) == (f"{way}/p2p/{RELAY}",)


def test_loopback_and_circuits_are_no_relays():
    far = f"/ip4/45.77.0.2/tcp/1/p2p/{HIDDEN}/p2p-circuit"
    contacts = Contacts(ME, [f"{far}/p2p/{RELAY}"])
    assert contacts.relays({RELAY: at(far) + at("/ip4/127.0.0.1/tcp/1")}) == ()


def test_the_peer_of_a_circuit_is_its_end():
    circuit = f"/ip4/45.77.0.2/tcp/1/p2p/{RELAY}/p2p-circuit"
    assert peer_of(f"{circuit}/p2p/{HIDDEN}") == HIDDEN
    with pytest.raises(AddressError):
        parse_address(circuit)


def test_paths_tell_what_changed():
    direct, circuit = "/ip4/45.77.0.3/tcp/1", f"/ip4/45.77.0.2/tcp/1/p2p/{RELAY}/p2p-circuit"
    paths = Paths()
    [seen] = paths.changes({HIDDEN: at(circuit)})
    assert (seen.path, seen.relay) == ("relayed", RELAY)
    assert paths.changes({HIDDEN: at(circuit)}) == []
    [seen] = paths.changes({HIDDEN: at(circuit) + at(direct)})
    assert seen.path == "direct"
    [seen] = paths.changes({})
    assert seen.path == "lost"


# ---- absences --------------------------------------------------------------------------------


def looks(absences, wanted, present, until_s, step_s=1.0):
    """When each was tried."""
    tried = {}
    now = 0.0
    while now <= until_s:
        for peer in absences.look(wanted, present, now).due:
            tried.setdefault(peer, []).append(now)
        now += step_s
    return tried


def test_who_is_missing_is_tried_at_once_and_then_after_longer_pauses():
    tried = looks(Absences(random.Random(0)), [ANN], [], 300.0)[ANN]
    pauses = [b - a for a, b in pairwise(tried)]
    assert tried[0] == 0.0
    assert pauses[0] < pauses[-1] <= 1.25 * LOST.longest_s + 1.0
    assert 8 <= len(tried) <= 16


def test_a_relayed_path_is_left_alone_at_first_and_given_up_ever_more_rarely():
    later = Pauses(before_s=60.0, first_s=120.0, longest_s=900.0, news=False)
    tried = looks(Absences(random.Random(0), later), [ANN], [], 3600.0)[ANN]
    pauses = [b - a for a, b in pairwise(tried)]
    assert tried[0] == 60.0
    assert 90.0 <= pauses[0] <= 151.0
    assert all(pause >= 675.0 for pause in pauses[4:])


def test_only_a_few_are_tried_at_once_and_all_get_their_turn():
    absences = Absences(random.Random(1))
    peers = [f"p{n}" for n in range(3 * AT_ONCE)]
    assert len(absences.look(peers, [], 0.0).due) == AT_ONCE
    assert set(looks(Absences(random.Random(1)), peers, [], 20.0)) == set(peers)


def test_the_first_who_is_back_has_all_others_tried_at_once():
    absences = Absences(random.Random(2))
    peers = [ANN, BOB, CAT]
    absences.look(peers, peers, 0.0)
    now = 1.0
    while now < 100.0:
        absences.look(peers, [], now)
        now += 1.0
    back = absences.look(peers, [BOB], now)
    assert set(back.due) == {ANN, CAT}
    assert back.returned == (BOB,)
    assert absences.look(peers, [BOB], now + 1.0).returned == ()


def test_who_was_never_there_is_no_return():
    absences = Absences(random.Random(3))
    absences.look([ANN], [], 0.0)
    assert absences.look([ANN], [ANN], 1.0).returned == ()


# ---- clocks ----------------------------------------------------------------------------------


def clocks(offsets, mine, looks=3):
    skew = Skew()
    for turn in range(looks):
        now = 1000.0 + 10.0 * turn
        skew.look({f"p{n}": now + off for n, off in enumerate(offsets)}, now + mine)
    return skew.offset()


@pytest.mark.parametrize("mine", [600.0, -600.0])
def test_the_one_whose_clock_is_off_is_told(mine):
    offset = clocks([0.0, 0.0, 0.0], mine)
    assert offset.ahead_s == mine
    assert offset.peers == 3


def test_the_others_are_not_told_of_one_wrong_clock():
    assert clocks([600.0, 0.0, 3.0], 0.0) is None
    assert clocks([], 0.0) is None


def test_a_record_that_nobody_renews_tells_nothing():
    skew = Skew()
    for now in (0.0, 1000.0, 2000.0):
        skew.look({ANN: 5.0}, now)
    assert skew.offset() is None
