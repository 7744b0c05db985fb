"""Invites: one string, caught when damaged, refused when foreign."""

import base64
import string

import msgpack
import pytest

from swarmnet.errors import AddressError, InviteError
from swarmnet.wire.invite import MAX_CHARS, PREFIX, Invite, _checksum, parse_address

PEER = "12D3KooWSD58rLBMz1396Tei2T4ni9ruHq9iFUM61UeVWte1HKwG"
ADDRESS = f"/ip4/192.0.2.7/tcp/4001/p2p/{PEER}"
INVITE = Invite("demo", "ab" * 16, (ADDRESS,), PEER)


def packed(*content):
    body = msgpack.packb(list(content))
    raw = body + _checksum(body)
    return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_round_trip():
    assert Invite.decode(INVITE.encode()) == INVITE


def test_blanks_around_it_do_not_matter():
    assert Invite.decode(f"  {INVITE.encode()}\n") == INVITE


def test_it_is_one_word_that_survives_a_shell():
    assert set(INVITE.encode()) <= set(string.ascii_letters + string.digits + "-_:")


def test_every_damaged_character_is_caught():
    text = INVITE.encode()
    alphabet = "".join(sorted(set(string.ascii_letters + string.digits + "-_")))
    for index, char in enumerate(text):
        other = alphabet[(alphabet.find(char) + 1) % len(alphabet)]
        with pytest.raises(InviteError):
            Invite.decode(text[:index] + other + text[index + 1 :])


def test_every_truncation_is_caught():
    text = INVITE.encode()
    for length in range(len(text)):
        with pytest.raises(InviteError):
            Invite.decode(text[:length])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with"),
        ("hello", "must begin with"),
        ("swarm2:AAAA", "must begin with"),
        (PREFIX, "damaged"),
        (PREFIX + "AAAA!", "not base64"),
        (PREFIX + "ü", "not base64"),
        (PREFIX + "A" * MAX_CHARS, "longer than"),
    ],
)
def test_foreign_text_is_named(text, message):
    with pytest.raises(InviteError, match=message):
        Invite.decode(text)


@pytest.mark.parametrize(
    "content",
    [
        ("Demo", "ab" * 16, [ADDRESS], PEER),
        ("demo", "ab" * 15, [ADDRESS], PEER),
        ("demo", "ab" * 16, [], PEER),
        ("demo", "ab" * 16, ["/ip4/192.0.2.7/tcp/4001"], PEER),
        ("demo", "ab" * 16, [7], PEER),
        ("demo", "ab" * 16, 7, PEER),
        ("demo", "ab" * 16, [ADDRESS], "../etc"),
        ("demo", "ab" * 16, [ADDRESS]),
        (None, None, None, None),
    ],
)
def test_well_packed_nonsense_is_refused(content):
    with pytest.raises(InviteError, match="not valid"):
        Invite.decode(packed(*content))


@pytest.mark.parametrize("text", ["", "x", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3/tcp/1/p2p/" + PEER])
def test_addresses_must_name_their_peer(text):
    with pytest.raises(AddressError):
        parse_address(text)
