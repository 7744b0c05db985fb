"""Who a peer is: an Ed25519 key on disk, and an id that holds the public key itself.

The file is libp2p's protobuf ``PrivateKey`` (key type Ed25519, 32 bytes of seed and 32 of public
key), which the daemon reads as it is. The peer id is the base58 form of the *identity multihash*
of the public key, so whoever knows an id can check signatures without asking anybody.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from swarmnet.errors import IdentityError

_FILE_PREFIX = bytes([0x08, 0x01, 0x12, 0x40])
"""Protobuf: field 1 (key type) = Ed25519, field 2 (data) of 64 bytes."""
_ID_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
"""Multihash 'identity' of 36 bytes: protobuf PublicKey, Ed25519, 32 bytes."""
_SEED_BYTES = 32
_FILE_BYTES = len(_FILE_PREFIX) + 2 * _SEED_BYTES


class Identity:
    """A key that signs for one peer id. ``path`` is where the daemon reads it."""

    def __init__(self, key: Ed25519PrivateKey, path: Path) -> None:
        self.path = path
        self.peer_id = peer_id_of(key.public_key().public_bytes_raw())
        self._key = key

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"


def load_or_create(path: Path) -> Identity:
    """The identity in ``path``, made on first use. Raises IdentityError with what to change."""
    try:
        if path.exists():
            return _load(path)
        return _create(path)
    except OSError as error:
        raise IdentityError(f"identity file {path}: {error.strerror or error}") from error


def peer_id_of(public: bytes) -> str:
    """The id (``12D3KooW...``) of a raw Ed25519 public key of 32 bytes."""
    return base58.b58encode(_ID_PREFIX + public).decode()


def verify(peer_id: str, signature: bytes, data: bytes) -> bool:
    """Whether the holder of ``peer_id``'s key signed ``data``. Never raises on foreign input."""
    key = _public_key(peer_id)
    if key is None:
        return False
    try:
        key.verify(signature, data)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


@lru_cache(maxsize=1024)
def _public_key(peer_id: str) -> Ed25519PublicKey | None:
    try:
        raw = base58.b58decode(peer_id)
    except ValueError:
        return None
    if len(raw) != len(_ID_PREFIX) + _SEED_BYTES or not raw.startswith(_ID_PREFIX):
        return None
    return Ed25519PublicKey.from_public_bytes(raw[len(_ID_PREFIX) :])


def _load(path: Path) -> Identity:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise IdentityError(f"identity file {path} is open to other users: chmod 600 {path}")
    with path.open("rb") as file:
        raw = file.read(_FILE_BYTES + 1)
    problem = _problem(raw)
    if problem:
        raise IdentityError(
            f"identity file {path} {problem}: name another file, or delete it to get a new identity"
        )
    seed = raw[len(_FILE_PREFIX) :][:_SEED_BYTES]
    return Identity(Ed25519PrivateKey.from_private_bytes(seed), path)


def _problem(raw: bytes) -> str:
    if len(raw) != _FILE_BYTES or not raw.startswith(_FILE_PREFIX):
        return "is not an Ed25519 key in libp2p's form"
    seed, public = raw[len(_FILE_PREFIX) :][:_SEED_BYTES], raw[-_SEED_BYTES:]
    if Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() != public:
        return "holds two halves that do not belong together"
    return ""


def _create(path: Path) -> Identity:
    key = Ed25519PrivateKey.generate()
    raw = _FILE_PREFIX + key.private_bytes_raw() + key.public_key().public_bytes_raw()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    return Identity(key, path)
