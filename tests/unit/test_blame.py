"""Blame falls on the slow sender, the slow receiver or the bad link, and on nobody for load."""

import random

import pytest

from swarmnet.exchange.blame import HISTORY, MAX_CELLS, TIMES, Blame

PEERS = [f"peer{letter}" for letter in "ABCDEFGH"]
NBYTES = 4_000_000
PAYLOAD_S = 0.4


def rounds(count, seed, slow, peers=PEERS, jitter=None):
    """Random pairs meet ``count`` times; ``slow(source, destination)`` stretches a payload."""
    dice, blame = random.Random(seed), Blame()
    jitter = jitter or (lambda: dice.uniform(1.0, 3.0))
    for _ in range(count):
        order = dice.sample(peers, len(peers))
        for one, other in zip(order[::2], order[1::2], strict=False):
            for source, destination in ((one, other), (other, one)):
                seconds = PAYLOAD_S * jitter() * slow(source, destination)
                blame.moved(source, destination, NBYTES, seconds)
                blame.started(source, destination, 0.01 * jitter())
            blame.called(other, answered=True)
    return blame


def found(blame):
    return {(v.kind, v.peer, v.other) for v in blame.verdicts()}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("peers", [PEERS, PEERS[:6], PEERS[:4]])
def test_a_slow_sender_is_its_row(seed, peers):
    slow = peers[seed % len(peers)]
    blame = rounds(5, seed, lambda s, d: 12.0 if s == slow else 1.0, peers)
    assert found(blame) == {("sender", slow, "")}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("peers", [PEERS, PEERS[:6], PEERS[:4]])
def test_a_slow_receiver_is_its_column(seed, peers):
    slow = peers[seed % len(peers)]
    blame = rounds(5, seed, lambda s, d: 12.0 if d == slow else 1.0, peers)
    assert found(blame) == {("receiver", slow, "")}


@pytest.mark.parametrize("seed", range(10))
def test_a_bad_link_is_one_cell_after_five_meetings_of_its_ends(seed):
    dice, blame = random.Random(seed), Blame()
    bad = tuple(dice.sample(PEERS, 2))
    for _ in range(5):
        for source in PEERS:
            for destination in PEERS:
                if source != destination:
                    times = 12.0 if (source, destination) == bad else 1.0
                    seconds = PAYLOAD_S * times * dice.uniform(1.0, 3.0)
                    blame.moved(source, destination, NBYTES, seconds)
    assert found(blame) == {("link", *bad)}


@pytest.mark.parametrize("seed", range(10))
def test_a_late_starter_is_told_from_a_slow_sender(seed):
    dice = random.Random(100 + seed)
    blame = rounds(5, seed, lambda s, d: 1.0)
    late = PEERS[seed % 8]
    for destination in PEERS:
        if destination != late:
            blame.started(late, destination, 2.0 * dice.uniform(1.0, 3.0))
            blame.started(late, destination, 2.0 * dice.uniform(1.0, 3.0))
    assert found(blame) == {("start", late, "")}


@pytest.mark.parametrize("seed", range(20))
def test_two_slow_senders_of_four_make_nobody_a_slow_receiver(seed):
    blame = rounds(40, seed, lambda s, d: 12.0 if s in PEERS[:2] else 1.0, PEERS[:4])
    senders = {(kind, peer) for kind, peer, _ in found(blame) if kind != "link"}
    assert senders == {("sender", PEERS[0]), ("sender", PEERS[1])}


def test_a_machine_slow_both_ways_is_blamed_for_both():
    blame = rounds(40, 3, lambda s, d: 12.0 if PEERS[0] in (s, d) else 1.0)
    assert found(blame) == {("sender", PEERS[0], ""), ("receiver", PEERS[0], "")}


def test_a_slow_sender_with_a_bad_link_besides():
    def slow(source, destination):
        bad = (source, destination) == (PEERS[2], PEERS[5])
        return 8.0 if bad or source == PEERS[0] else 1.0

    blame = rounds(60, 4, slow)
    assert found(blame) == {("sender", PEERS[0], ""), ("link", PEERS[2], PEERS[5])}


@pytest.mark.parametrize("count", [1, 2, 5, 20, 200])
@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_blamed_for_three_times_load(seed, count):
    dice = random.Random(seed)
    for peers in (PEERS, PEERS[:3], PEERS[:2]):
        assert found(rounds(count, seed, lambda s, d: 1.0, peers)) == set()
        extreme = rounds(count, seed, lambda s, d: 1.0, peers, lambda: dice.choice((1.0, 3.0)))
        assert found(extreme) == set()


def test_nobody_is_blamed_for_exactly_three_times_the_median():
    blame = rounds(20, 1, lambda s, d: TIMES if s == PEERS[0] else 1.0, jitter=lambda: 1.0)
    assert found(blame) == set()


def test_what_is_instant_is_slow_for_nobody():
    """Milliseconds on one machine are the scheduler's, however many times the median they are."""
    blame = rounds(20, 1, lambda s, d: 100.0 if s == PEERS[0] else 1.0, jitter=lambda: 0.001)
    assert found(blame) == set()


def test_a_bad_link_of_a_slow_sender_is_still_seen():
    def slow(source, destination):
        return 10.0 * (10.0 if destination == PEERS[3] else 1.0) if source == PEERS[0] else 1.0

    blame = rounds(60, 4, slow)
    assert found(blame) == {("sender", PEERS[0], ""), ("link", PEERS[0], PEERS[3])}


def test_payloads_of_unequal_size_are_compared_per_byte():
    blame, dice = Blame(), random.Random(0)
    for _ in range(10):
        for source in PEERS:
            for destination in PEERS:
                nbytes = dice.choice((10**6, 10**8))
                blame.moved(source, destination, nbytes, nbytes / 1e6)
    assert found(blame) == set()


def test_silence_is_not_slowdown():
    blame = rounds(5, 2, lambda s, d: 12.0 if s == PEERS[1] else 1.0)
    for _ in range(4):
        blame.called(PEERS[0], answered=False)
    silent, slow = blame.verdicts()
    assert (silent.kind, silent.peer) == ("silent", PEERS[0])
    assert (slow.kind, slow.peer) == ("sender", PEERS[1])
    assert silent.say() == "peerA does not answer: 4 calls in a row"
    blame.called(PEERS[0], answered=True)
    assert [verdict.kind for verdict in blame.verdicts()] == ["sender"]


def test_a_verdict_says_how_slow_and_over_how_many_links():
    blame = rounds(60, 1, lambda s, d: 4.2 if s == PEERS[0] else 1.0, jitter=lambda: 1.0)
    (verdict,) = blame.verdicts()
    words = "A sends slowly: 4.2 times the median over its 7 links"
    assert verdict.say(lambda peer: peer.removeprefix("peer")) == words
    assert blame.sends()[PEERS[0]] == pytest.approx(4.2)
    assert blame.receives()[PEERS[0]] == pytest.approx(1.0)
    assert blame.measured == 8 * 7


def test_two_peers_alone_cannot_tell_who_is_slow():
    blame = rounds(20, 1, lambda s, d: 50.0 if s == PEERS[0] else 1.0, PEERS[:2])
    assert not {kind for kind, *_ in found(blame)} & {"sender", "receiver"}


def test_the_table_is_bounded_and_forgets_what_was_long_ago():
    blame = Blame()
    for number in range(MAX_CELLS + 100):
        blame.moved(f"peer{number}", "me", NBYTES, 1.0)
        blame.called(f"peer{number}", answered=False)
    assert blame.measured == MAX_CELLS
    assert len(blame.silent()) == MAX_CELLS
    blame = rounds(5, 1, lambda s, d: 12.0 if s == PEERS[0] else 1.0)
    for _ in range(HISTORY):
        for one in PEERS:
            for other in PEERS:
                blame.moved(one, other, NBYTES, PAYLOAD_S)
    assert found(blame) == set()


def test_an_empty_table_says_nothing():
    blame = Blame()
    assert (blame.verdicts(), blame.sends(), blame.starts(), blame.silent()) == ([], {}, {}, {})
