"""The invite: one short string that holds all a volunteer needs to find and trust a run.

``swarm1:`` + base64url(msgpack {run, fingerprint, bootstrap addresses, owner's key} + checksum)
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

import msgpack
from multiaddr import Multiaddr

from swarmnet.errors import AddressError, InviteError

PREFIX = "swarm1:"
MAX_CHARS = 4096
_CHECK_BYTES = 4


@dataclass(frozen=True)
class Invite:
    """``run`` is the run's name; ``owner`` the peer id whose key may end, pause or resume it."""

    run: str
    fingerprint: str
    bootstrap: tuple[str, ...]
    owner: str

    def encode(self) -> str:
        body = msgpack.packb([self.run, self.fingerprint, list(self.bootstrap), self.owner])
        return PREFIX + _encoded(body + _checksum(body))

    @classmethod
    def decode(cls, text: str) -> Invite:
        """Raises InviteError, whose message says what is wrong with the string."""
        text = text.strip()
        if not text.startswith(PREFIX):
            raise InviteError(f"not an invite: it must begin with {PREFIX!r}")
        if len(text) > MAX_CHARS:
            raise InviteError(f"not an invite: longer than {MAX_CHARS} characters")
        body = _checked_body(text.removeprefix(PREFIX))
        try:
            run, fingerprint, bootstrap, owner = msgpack.unpackb(body)
            invite = cls(run, fingerprint, tuple(bootstrap), owner)
            _check(invite)
        except (ValueError, TypeError, AddressError, msgpack.UnpackException) as error:
            raise InviteError(f"the invite's content is not valid: {error}") from error
        return invite


def parse_address(text: str, *, needs_peer: bool = True) -> Multiaddr:
    """A multiaddr that, unless told otherwise, ends with its peer (``.../p2p/ID``).

    Raises AddressError.
    """
    try:
        address = Multiaddr(text)
        if needs_peer and [protocol.name for protocol in address.protocols()][-1] != "p2p":
            raise ValueError("it names no peer at its end")
    except Exception as error:
        wanted = "a multiaddr with a /p2p/ part" if needs_peer else "a multiaddr"
        raise AddressError(f"{text!r} is not {wanted}") from error
    return address


def peer_of(text: str) -> str:
    """Whom a full multiaddr leads to: its last peer, for others on the way are relays.

    Raises AddressError.
    """
    return str(parse_address(text)).rpartition("/p2p/")[2]


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _checked_body(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise InviteError("the invite is damaged: not base64; copy it again") from error
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if not body or _checksum(body) != check:
        raise InviteError("the invite is cut off or damaged (checksum); copy it again")
    if _encoded(raw) != text:
        raise InviteError("the invite is damaged: its last character is not one we write")
    return body


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK_BYTES]


def _check(invite: Invite) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", invite.run):
        raise ValueError("bad run name")
    if not re.fullmatch(r"[0-9a-f]{32}", invite.fingerprint):
        raise ValueError("bad fingerprint")
    if not re.fullmatch(r"[1-9A-Za-z]{8,128}", invite.owner):
        raise ValueError("bad owner id")
    if not invite.bootstrap:
        raise ValueError("no bootstrap address")
    for address in invite.bootstrap:
        parse_address(address)
