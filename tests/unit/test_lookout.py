"""When the book is read: on news, when digests do not reach everybody, and at the latest then."""

import pytest

from swarmnet.exchange.lookout import LATEST_RENEWALS, QUIET_RENEWALS, Lookout
from swarmnet.exchange.member import HEARSAY_RENEWALS
from swarmnet.exchange.membership import Membership, Status

RENEW_S = 10.0
PEERS = [f"12D3KooWpeer{letter}" for letter in "ABCDEFGHJKMNPQRSTUVW"]


@pytest.fixture
def view():
    return Membership("12D3KooWme", RENEW_S)


@pytest.fixture
def lookout(view):
    lookout = Lookout(view)
    everybody(view, 0.0)
    lookout.read(0.0)
    return lookout


def everybody(view, now, peers=PEERS):
    for peer in peers:
        view.observe(peer, Status(1, int(1000 * now), "training"), now)


def test_the_first_look_is_always_due(view):
    assert Lookout(view).due(0.0)


def test_a_fresh_view_needs_no_book_until_the_latest_moment(view, lookout):
    for beat in range(1, LATEST_RENEWALS):
        everybody(view, beat * RENEW_S)
        assert not lookout.due(beat * RENEW_S)
    everybody(view, LATEST_RENEWALS * RENEW_S)
    assert lookout.due(LATEST_RENEWALS * RENEW_S)


def test_rumours_are_believed_for_longer_than_the_book_stays_shut():
    assert HEARSAY_RENEWALS >= 2 * LATEST_RENEWALS


def test_a_few_quiet_peers_are_no_reason(view, lookout):
    everybody(view, 15.0, PEERS[1:])
    assert not lookout.due(QUIET_RENEWALS * RENEW_S + 1)


def test_a_part_of_the_swarm_that_is_quiet_is(view, lookout):
    everybody(view, 15.0, PEERS[2:])
    assert not lookout.due(QUIET_RENEWALS * RENEW_S)
    assert lookout.due(QUIET_RENEWALS * RENEW_S + 1)


def test_nobody_left_is_a_reason(view, lookout):
    assert lookout.due(31.0)


def test_news_is_a_reason_until_the_book_was_read(view, lookout):
    view.suspect(PEERS[0], 3.0)
    assert lookout.due(10.0)
    lookout.read(10.0)
    everybody(view, 10.0)
    assert not lookout.due(20.0)
    assert lookout.reads == 2
