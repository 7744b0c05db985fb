"""Records in the DHT: msgpack maps, each signed by the peer whose id is its subkey.

    key   swarmnet/<fingerprint>/<name>, where <name> is one of RECORDS
    subkey   the writer's peer id, which holds its public key
    value    {"v": 1, ...body..., "sig": 64 bytes}

The signature covers (hashed key, subkey, map without ``sig``, expiry in milliseconds), so a
record can be neither forged, nor moved, nor prolonged. An ordinary client of hivemind's DHT can
read the map. Nothing can be deleted: a later expiry wins, and whoever leaves says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgpack

from swarmnet.net.engine import DHTID, DHTRecord, MSGPackSerializer, RecordValidatorBase
from swarmnet.net.identity import Identity, verify

RECORDS = ("peers", "control", "lease")
"""All names that a run keeps in the DHT."""
VERSION = 1
MAX_VALUE_BYTES = 2048
LIFE_S = 30 * 60.0
SLACK_S = 25 * 60.0
"""How far ahead of ours another computer's clock may be: one is ten minutes fast and one as slow,
with something to spare."""


def key_of(fingerprint: str, name: str) -> str:
    """The DHT key of the run's record ``name``."""
    return f"swarmnet/{fingerprint}/{name}"


def hashed(key: str) -> bytes:
    """What validators, and nodes that store for others, see instead of ``key``."""
    return bytes(DHTID.generate(source=key).to_bytes())


def sign(identity: Identity, key: str, body: Mapping[str, Any], expiry_ms: int) -> dict[str, Any]:
    """The map to store. ValueError: ``body`` uses a reserved key, or is too large."""
    if not {"v", "sig"}.isdisjoint(body):
        raise ValueError("a record's body cannot hold 'v' or 'sig'")
    value = {"v": VERSION, **body}
    signed = _signed_bytes(hashed(key), identity.peer_id, value, expiry_ms)
    value["sig"] = identity.sign(signed)
    if len(msgpack.packb(value)) > MAX_VALUE_BYTES:
        raise ValueError(f"a record above {MAX_VALUE_BYTES} bytes is stored by nobody")
    return value


def body_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """What the writer said, without version and signature."""
    return {key: item for key, item in value.items() if key not in ("v", "sig")}


class SignedRecords(RecordValidatorBase):  # type: ignore[misc]
    """The rule for every record that this node stores or believes: known key, signed, bounded."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = {hashed(key) for key in keys}

    def validate(self, record: DHTRecord) -> bool:
        if record.key not in self._keys or len(record.value) > MAX_VALUE_BYTES:
            return False
        if not 0 < record.expiration_time <= time.time() + LIFE_S + SLACK_S:
            return False
        return _authentic(record.key, record.subkey, record.value, record.expiration_time)


@lru_cache(maxsize=4096)
def _authentic(key: bytes, subkey: bytes, value: bytes, expiry: float) -> bool:
    """Cached: a lookup meets every record once for each of its replicas."""
    expiry_ms = round(expiry * 1000)
    try:
        peer = MSGPackSerializer.loads(subkey)
        content = msgpack.unpackb(value)
        signature = content.pop("sig")
        signed = _signed_bytes(key, peer, content, expiry_ms)
    except Exception:  # noqa: BLE001 - bytes of strangers; msgpack raises many unrelated types
        return False
    if not isinstance(peer, str) or content.get("v") != VERSION or expiry != expiry_ms / 1000:
        return False
    return verify(peer, signature, signed)


def _signed_bytes(key: bytes, peer: str, content: Mapping[str, Any], expiry_ms: int) -> bytes:
    return bytes(msgpack.packb([key, peer, content, expiry_ms]))
