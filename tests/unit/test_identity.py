"""Identity files and what their keys sign."""

import stat

import base58
import pytest

from swarmnet.errors import IdentityError
from swarmnet.net.identity import load_or_create, verify

PREFIX = bytes([0x08, 0x01, 0x12, 0x40])


def put(path, raw, mode=0o600):
    path.write_bytes(raw)
    path.chmod(mode)
    return path


def test_round_trip_keeps_the_id(tmp_path):
    made = load_or_create(tmp_path / "deep" / "key")
    again = load_or_create(made.path)
    assert made.peer_id == again.peer_id
    assert made.peer_id.startswith("12D3KooW")
    assert made.sign(b"x") == again.sign(b"x")


def test_file_is_private_and_in_libp2p_form(tmp_path):
    made = load_or_create(tmp_path / "key")
    raw = made.path.read_bytes()
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert raw.startswith(PREFIX)
    assert len(raw) == 68
    assert base58.b58decode(made.peer_id)[-32:] == raw[-32:]


def test_signature_holds_for_signer_and_data_only(tmp_path):
    one, other = load_or_create(tmp_path / "a"), load_or_create(tmp_path / "b")
    signature = one.sign(b"data")
    assert verify(one.peer_id, signature, b"data")
    assert not verify(one.peer_id, signature, b"date")
    assert not verify(other.peer_id, signature, b"data")
    assert not verify(one.peer_id, signature[:-1], b"data")


@pytest.mark.parametrize(
    "peer_id", ["", "0OIl", "12D3KooW", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "ü"]
)
def test_foreign_ids_verify_nothing(peer_id):
    assert not verify(peer_id, b"\0" * 64, b"data")


@pytest.mark.parametrize("signature", [b"", "text", None, 7])
def test_foreign_signatures_verify_nothing(tmp_path, signature):
    assert not verify(load_or_create(tmp_path / "key").peer_id, signature, b"data")


def test_open_permissions_are_refused(tmp_path):
    path = load_or_create(tmp_path / "key").path
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        load_or_create(path)


def foreign_files():
    rsa = bytes([0x08, 0x00, 0x12, 0x40]) + b"\1" * 64
    return {
        "empty": b"",
        "text": b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "rsa": rsa,
        "short": PREFIX + b"\1" * 63,
        "long": PREFIX + b"\1" * 65,
        "huge": b"\0" * 100_000,
        "halves": PREFIX + b"\1" * 32 + b"\2" * 32,
    }


@pytest.mark.parametrize("shape", sorted(foreign_files()))
def test_foreign_files_are_named_in_one_line(tmp_path, shape):
    path = put(tmp_path / "key", foreign_files()[shape])
    with pytest.raises(IdentityError) as caught:
        load_or_create(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_way_is_the_users_act(tmp_path):
    (tmp_path / "key").mkdir(mode=0o700)
    with pytest.raises(IdentityError, match="key"):
        load_or_create(tmp_path / "key")
