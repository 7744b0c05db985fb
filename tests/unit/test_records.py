"""What the DHT's nodes store and believe: signed, bounded, under the run's own keys."""

import time

import msgpack
import pytest

from swarmnet.net.engine import DHTRecord, MSGPackSerializer
from swarmnet.net.identity import load_or_create
from swarmnet.net.records import (
    LIFE_S,
    MAX_VALUE_BYTES,
    SLACK_S,
    SignedRecords,
    body_of,
    hashed,
    key_of,
    sign,
)

FINGERPRINT = "ab" * 16
KEY = key_of(FINGERPRINT, "peers")
BODY = {"counter": 3, "state": "training", "rate": 1.5, "elapsed_s": 0.0}


@pytest.fixture
def identity(tmp_path):
    return load_or_create(tmp_path / "key")


@pytest.fixture
def rule():
    return SignedRecords([KEY, key_of(FINGERPRINT, "control")])


def now_ms(ahead_s=LIFE_S):
    return int((time.time() + ahead_s) * 1000)


def record(identity, expiry_ms, *, body=BODY, key=KEY):
    value = sign(identity, key, body, expiry_ms)
    subkey = MSGPackSerializer.dumps(identity.peer_id)
    return DHTRecord(hashed(key), subkey, MSGPackSerializer.dumps(value), expiry_ms / 1000)


def changed(record, **fields):
    parts = {name: getattr(record, name) for name in ("key", "subkey", "value", "expiration_time")}
    return DHTRecord(**(parts | fields))


def test_what_a_peer_signed_is_believed(rule, identity):
    assert rule.validate(record(identity, now_ms()))


def test_the_value_is_a_plain_map(identity):
    value = msgpack.unpackb(record(identity, now_ms()).value)
    assert value["v"] == 1
    assert len(value["sig"]) == 64
    assert body_of(value) == BODY


def test_forged_content_is_refused(rule, identity):
    good = record(identity, now_ms())
    value = msgpack.unpackb(good.value) | {"state": "left"}
    assert not rule.validate(changed(good, value=msgpack.packb(value)))


def test_every_damaged_byte_is_caught(rule, identity):
    good = record(identity, now_ms())
    for index in range(len(good.value)):
        raw = bytearray(good.value)
        raw[index] ^= 1
        assert not rule.validate(changed(good, value=bytes(raw)))


@pytest.mark.parametrize("shift_ms", [-60_000, -1, 1, 60_000])
def test_a_replay_with_another_expiry_is_refused(rule, identity, shift_ms):
    good = record(identity, now_ms())
    moved = (round(good.expiration_time * 1000) + shift_ms) / 1000
    assert not rule.validate(changed(good, expiration_time=moved))


def test_an_expiry_between_milliseconds_is_refused(rule, identity):
    good = record(identity, now_ms())
    assert not rule.validate(changed(good, expiration_time=good.expiration_time + 1e-5))


def test_a_foreign_subkey_is_refused(rule, identity, tmp_path):
    other = load_or_create(tmp_path / "other")
    good = record(identity, now_ms())
    subkey = MSGPackSerializer.dumps(other.peer_id)
    assert not rule.validate(changed(good, subkey=subkey))


def test_a_record_moved_to_another_key_is_refused(rule, identity):
    good = record(identity, now_ms())
    moved = changed(good, key=hashed(key_of(FINGERPRINT, "control")))
    assert not rule.validate(moved)


def test_an_unknown_key_is_refused(rule, identity):
    assert not rule.validate(record(identity, now_ms(), key=key_of(FINGERPRINT, "photos")))
    assert not rule.validate(record(identity, now_ms(), key=key_of("cd" * 16, "peers")))


def test_an_entry_that_is_no_dictionary_entry_is_refused(rule, identity):
    good = record(identity, now_ms())
    for subkey in (MSGPackSerializer.dumps(None), b"", MSGPackSerializer.dumps(7)):
        assert not rule.validate(changed(good, subkey=subkey))


def test_oversized_values_are_neither_written_nor_stored(rule, identity):
    with pytest.raises(ValueError, match="stored by nobody"):
        sign(identity, KEY, {"text": "x" * MAX_VALUE_BYTES}, now_ms())
    assert not rule.validate(changed(record(identity, now_ms()), value=b"x" * 5000))


def test_reserved_keys_are_refused(identity):
    with pytest.raises(ValueError, match="cannot hold"):
        sign(identity, KEY, {"sig": b""}, now_ms())


def test_clocks_ten_minutes_fast_and_slow_read_each_other(rule, identity):
    for apart_s in (-20 * 60, 20 * 60):
        assert rule.validate(record(identity, now_ms(LIFE_S + apart_s)))


def test_an_expiry_beyond_the_longest_life_is_refused(rule, identity):
    assert rule.validate(record(identity, now_ms(LIFE_S + SLACK_S - 30)))
    assert not rule.validate(record(identity, now_ms(LIFE_S + SLACK_S + 30)))


@pytest.mark.parametrize("expiry", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_an_expiry_that_is_no_time_is_refused(rule, identity, expiry):
    assert not rule.validate(changed(record(identity, now_ms()), expiration_time=expiry))


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", msgpack.packb([1, 2]), msgpack.packb({"v": 1}), msgpack.packb(7)]
)
def test_values_of_other_shapes_are_refused(rule, identity, value):
    assert not rule.validate(changed(record(identity, now_ms()), value=value))
