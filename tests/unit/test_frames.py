"""Frame bytes: golden, bounded, refused when foreign, whole however they are cut.

After a wanted change of the wire, rewrite the golden file and bump ``WIRE_VERSION``:

    SWARMNET_REWRITE_GOLDEN=1 python -m pytest tests/unit/test_frames.py
"""

import json
import os
import random
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmnet.errors import FrameError, MessageError, PeerFault
from swarmnet.wire import HEADER_BYTES, Frame, FrameReader, Kind, encode_header, parse_header
from swarmnet.wire.frame import BOUNDS, MAX_CLAIMS
from swarmnet.wire.letters import Backward, Fates, Forget, Forward, Inquire, Receipt, Resume
from swarmnet.wire.messages import (
    MAX_GROUP,
    MAX_RUMOURS,
    Accept,
    Ask,
    Beat,
    Busy,
    Call,
    Commit,
    Decide,
    Decline,
    Dial,
    Dialed,
    Digest,
    Get,
    Got,
    Have,
    Hello,
    Hint,
    Hold,
    Join,
    Lane,
    Manifest,
    Means,
    Offer,
    Refuse,
    Roster,
    Rumour,
    Tally,
    Tell,
    Want,
    Welcome,
    Word,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "frames.json"
PEER = "12D3KooWSD58rLBMz1396Tei2T4ni9ruHq9iFUM61UeVWte1HKwG"
WORD = Word(
    incarnation=1_700_000_000,
    counter=70_000,
    state="training",
    role="worker",
    tokens=2**40,
    elapsed_s=12.5,
    step=9,
    rate=1e3,
)
RUMOUR = Rumour(peer=PEER, incarnation=1_700_000_000, counter=7)
DIGEST = Digest(mine=WORD, rumours=(RUMOUR,))
HINT = Hint(peer=PEER, age_s=0.5)
CLAIMS = (7).to_bytes(8, "big") + (2**63).to_bytes(8, "big")
MESSAGES = (
    Hello(fingerprint="ab" * 16, wire=1, software="0.1.0"),
    Welcome(software="0.1.0"),
    Refuse(reason="run", run_file=b'name = "demo"\n'),
    Offer(round=3, phase="train", index=0, layout="cd" * 8, nbytes=4096, work=20, digest=DIGEST),
    Accept(round=3, nbytes=4096, work=7),
    Hold(round=3),
    Decline(reason="busy", retry_s=0.25, digest=DIGEST, hints=(HINT,)),
    Have(round=3),
    Ask(rounds=(1, 2, 300)),
    Tell(outcomes=("applied", "dropped")),
    Call(round=3, phase="train", layout="cd" * 8, nbytes=4096, digest=DIGEST),
    Join(round=3),
    Roster(round=3, members=(PEER, PEER[:-1] + "H")),
    Lane(leader=PEER, round=3),
    Got(holds=(0, 2), work=20, done=True, claims=CLAIMS),
    Decide(number=2**40 + 1, seats=(0, 2), works=(20, 7), claims=(CLAIMS, b"")),
    Means(number=2**40 + 1),
    Commit(number=2**40 + 1),
    Beat(),
    Tally(stage=2, step=9, lineage="ef" * 16, committed=2**33, tokens=8192),
    Forward(
        sample=2**40 + 1,
        attempt=1,
        stage=1,
        trainer=PEER,
        route=(PEER, PEER[:-1] + "H"),
        mask=b"\x03",
        rows=2,
        length=128,
        version=9,
        steps=(9, 8),
        nbytes=1032,
    ),
    Backward(sample=2**40 + 1, attempt=1, stage=0, version=9, steps=(9, 8), nbytes=1024),
    Resume(sample=5, attempt=2, stage=0, route=(PEER, PEER[:-1] + "H"), mask=b"\x02"),
    Receipt(sample=5, attempt=2, stage=1, what="counted", version=9, loss=1.5, tokens=256),
    Fates(stage=1, step=9, samples=(5, 6), fates=("committed", "void")),
    Forget(samples=(5, 6)),
    Inquire(samples=(5,), let_go=True),
    Get(what="state"),
    Dial(port=4001),
    Dialed(seen="2001:db8::7", reached=True),
    Manifest(nbytes=5, chunks=(b"\1" * 32,), describes=b"\x80"),
    Want(chunks=(0, 7)),
    Busy(reason="busy", retry_s=1.5),
)


def wire_bytes(frame):
    return encode_header(frame.kind, len(frame.body)) + bytes(frame.body)


def known_frames():
    frames = {message.kind.name: message.frame() for message in MESSAGES}
    frames["PART"] = Frame(Kind.PART, bytes(range(16)))
    frames["CHUNK"] = Frame(Kind.CHUNK, bytes(range(16, 32)))
    return frames


def test_every_kind_has_its_golden_bytes():
    frames = {name: wire_bytes(frame).hex() for name, frame in known_frames().items()}
    assert set(frames) == {kind.name for kind in Kind}
    if os.environ.get("SWARMNET_REWRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(frames, indent=2) + "\n")
    assert frames == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind.name)
def test_golden_bytes_say_the_same_again(message):
    raw = bytes.fromhex(json.loads(GOLDEN.read_text())[message.kind.name])
    [frame] = FrameReader().feed(raw)
    assert type(message).parse(frame) == message


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_one_byte_above_the_bound_is_refused_on_both_sides(kind):
    assert parse_header(encode_header(kind, BOUNDS[kind])).length == BOUNDS[kind]
    with pytest.raises(FrameError, match="above"):
        encode_header(kind, BOUNDS[kind] + 1)
    raw = bytearray(encode_header(kind, 0))
    raw[8:12] = (BOUNDS[kind] + 1).to_bytes(4, "big")
    with pytest.raises(FrameError, match="above"):
        parse_header(bytes(raw))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"X", "not a swarmnet frame"),
        (4, b"\x02", "wire version 2"),
        (5, b"\xff", "unknown frame kind"),
        (5, b"\x00", "unknown frame kind"),
        (6, b"\x01", "reserved bits"),
    ],
)
def test_foreign_headers_are_refused(offset, value, message):
    raw = bytearray(encode_header(Kind.HAVE, 4))
    raw[offset : offset + 1] = value
    with pytest.raises(FrameError, match=message):
        parse_header(bytes(raw))


def test_the_reader_is_whole_again_byte_by_byte():
    frames = list(known_frames().values())
    reader, seen = FrameReader(), []
    for byte in b"".join(wire_bytes(frame) for frame in frames):
        seen += reader.feed(bytes([byte]))
    assert [(frame.kind, bytes(frame.body)) for frame in seen] == [
        (frame.kind, bytes(frame.body)) for frame in frames
    ]
    assert reader.idle


def test_the_reader_is_not_idle_inside_a_frame():
    raw = wire_bytes(Have(round=1).frame())
    for cut in range(1, len(raw)):
        reader = FrameReader()
        assert list(reader.feed(raw[:cut])) == []
        assert not reader.idle


def test_the_reader_stops_at_the_first_bad_header():
    reader = FrameReader()
    good = wire_bytes(Have(round=1).frame())
    feed = reader.feed(good + b"GET / HTTP/1.1\r\n")
    assert next(feed).kind is Kind.HAVE
    with pytest.raises(FrameError, match="not a swarmnet frame"):
        next(feed)


def test_pieces_of_any_size_give_the_same_frames():
    rng = random.Random(7)
    frames = [Frame(Kind.PART, rng.randbytes(rng.randrange(2000))) for _ in range(50)]
    raw = b"".join(wire_bytes(frame) for frame in frames)
    reader, seen, start = FrameReader(), [], 0
    while start < len(raw):
        size = rng.randrange(1, 3000)
        seen += reader.feed(raw[start : start + size])
        start += size
    assert [frame.body for frame in seen] == [frame.body for frame in frames]


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_give_frames_or_a_frame_error(raw):
    reader = FrameReader()
    try:
        for frame in reader.feed(raw):
            assert len(frame.body) <= BOUNDS[frame.kind]
    except FrameError:
        pass


@given(st.sampled_from(MESSAGES), st.binary(max_size=120))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_body_is_a_message_or_a_message_error(message, body):
    with suppress(MessageError):
        type(message).parse(Frame(message.kind, body))


@given(st.sampled_from(MESSAGES), st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_damaged_frame_is_a_message_or_the_partners_fault(message, data):
    raw = bytearray(wire_bytes(message.frame()))
    index = data.draw(st.integers(0, len(raw) - 1))
    raw[index] ^= data.draw(st.integers(1, 255))
    try:
        for frame in FrameReader().feed(bytes(raw)):
            type(message).parse(frame)
    except PeerFault:
        pass


@pytest.mark.parametrize(
    "lie",
    [
        {"state": "king"},
        {"role": "worker" * 9},
        {"rate": float("nan")},
        {"tokens": -1},
        {"counter": 2**62},
        {"elapsed_s": -1.0},
        {"peer": PEER},
    ],
)
def test_a_word_out_of_bounds_is_refused(lie):
    digest = DIGEST.model_dump() | {"mine": WORD.model_dump() | lie}
    body = msgpack.packb(MESSAGES[3].model_dump() | {"digest": digest})
    with pytest.raises(MessageError):
        Offer.parse(Frame(Kind.OFFER, body))


def test_a_digest_is_bounded():
    full = Digest(mine=WORD, rumours=(RUMOUR,) * (MAX_RUMOURS - 1))
    accept = Accept(round=3, nbytes=4096, digest=full)
    assert Accept.parse(accept.frame()).digest == full
    body = accept.model_dump()
    body["digest"]["rumours"] = (RUMOUR.model_dump(),) * MAX_RUMOURS
    with pytest.raises(MessageError):
        Accept.parse(Frame(Kind.ACCEPT, msgpack.packb(body)))


@pytest.mark.parametrize("claims", [b"1234567", bytes(8 * MAX_CLAIMS + 8)])
def test_claims_are_whole_ids_and_bounded(claims):
    body = Got(holds=(0,), work=1, done=False).model_dump() | {"claims": claims}
    with pytest.raises(MessageError):
        Got.parse(Frame(Kind.GOT, msgpack.packb(body)))


@pytest.mark.parametrize(
    "message",
    [Got(holds=(0, 2), work=20, done=True), Decide(number=7, seats=(0, 2), works=(20, 7))],
)
def test_claims_cost_nothing_where_there_are_none(message):
    frame = message.frame()
    assert b"claims" not in frame.body
    assert type(message).parse(frame) == message


def test_the_longest_words_of_a_group_fit_their_frames():
    most = bytes(8 * MAX_CLAIMS)
    seats = tuple(range(MAX_GROUP))
    got = Got(holds=seats, work=2**32 - 1, done=False, claims=most)
    decide = Decide(number=2**62 - 1, seats=seats, works=(2**32 - 1,) * 48, claims=(most,) * 48)
    for message in (got, decide):
        assert len(message.frame().body) <= BOUNDS[message.kind]


def test_a_message_of_another_kind_is_refused():
    with pytest.raises(MessageError, match="expected HAVE, got ASK"):
        Have.parse(Ask(rounds=()).frame())


def test_the_header_is_twelve_bytes():
    assert HEADER_BYTES == len(encode_header(Kind.PART, 1)) == 12
