"""Hashed chunks over real streams: whole, resumed, refused."""

import asyncio
import random

import msgpack
import pytest
from blake3 import blake3
from support import nodes

from swarmnet.errors import LinkError, PayloadError, PeerFault
from swarmnet.net.transfer import Limits, Partial, Served, fetch, serve_blob
from swarmnet.wire import Frame, Kind
from swarmnet.wire.frame import CHUNK_BYTES
from swarmnet.wire.messages import Get, Manifest

BLOB = random.Random(3).randbytes(5 * CHUNK_BYTES + 123)
DESCRIBES = {"step": 7, "name": "state"}
GET = Get(what="state")
LIMITS = Limits(max_bytes=len(BLOB), deadline_s=5.0)


def run(handler, asker):
    """``handler`` serves on one node, ``asker(open)`` asks from another; what it returns."""

    async def main(folder):
        async with nodes(folder, 2) as (donor, joiner):
            await donor.serve("state", handler)
            return await asker(lambda: joiner.open(donor.me, "state", 5.0))

    return main


async def serve(stream):
    get = Get.parse(await stream.receive(5.0))
    await serve_blob(stream, get, await Served.prepare(DESCRIBES, BLOB), 5.0)


async def ask_once(open_stream, limits=LIMITS, partial=None):
    stream = await open_stream()
    try:
        return await fetch(stream, GET, limits, partial)
    finally:
        await stream.close()


def test_it_arrives_whole_and_the_donor_knows(tmp_path):
    finished = []

    async def handler(stream):
        await serve(stream)
        finished.append(stream.peer)

    describes, data = asyncio.run(run(handler, ask_once)(tmp_path))
    assert describes == DESCRIBES
    assert data == BLOB
    assert len(finished) == 1


def test_nothing_is_a_blob_too(tmp_path):
    async def handler(stream):
        get = Get.parse(await stream.receive(5.0))
        await serve_blob(stream, get, await Served.prepare({}, b""), 5.0)

    assert asyncio.run(run(handler, ask_once)(tmp_path)) == ({}, bytearray())


def test_a_cut_transfer_goes_on_where_it_was(tmp_path):
    firsts = []

    async def handler(stream):
        get = Get.parse(await stream.receive(5.0))
        firsts.append(get.first)
        served = await Served.prepare(DESCRIBES, BLOB)
        if len(firsts) == 1:
            manifest = Manifest(nbytes=len(BLOB), chunks=served.hashes, describes=served.describes)
            await stream.send(manifest.frame(), 5.0)
            for index in range(3):
                chunk = BLOB[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                await stream.send(Frame(Kind.CHUNK, chunk), 5.0)
            await stream.receive(5.0)
        else:
            await serve_blob(stream, get, served, 5.0)

    async def asker(open_stream):
        partial = Partial()
        with pytest.raises(LinkError):
            await ask_once(open_stream, Limits(len(BLOB), deadline_s=1.0), partial)
        assert partial.done == 3
        return await ask_once(open_stream, partial=partial)

    describes, data = asyncio.run(run(handler, asker)(tmp_path))
    assert firsts == [0, 3]
    assert describes == DESCRIBES
    assert data == BLOB


def test_a_donor_that_moved_on_is_asked_anew(tmp_path):
    async def asker(open_stream):
        partial = Partial(hashes=(b"\0" * 32,), data=bytearray(CHUNK_BYTES), done=1)
        with pytest.raises(PayloadError, match="begin anew"):
            await ask_once(open_stream, partial=partial)
        return await ask_once(open_stream, partial=partial)

    assert asyncio.run(run(serve, asker)(tmp_path))[1] == BLOB


def test_more_than_wanted_is_refused_before_a_chunk_is_read(tmp_path):
    async def asker(open_stream):
        with pytest.raises(PayloadError, match="at most"):
            await ask_once(open_stream, Limits(max_bytes=len(BLOB) - 1, deadline_s=5.0))

    asyncio.run(run(serve, asker)(tmp_path))


def lying(manifest, *chunks):
    async def handler(stream):
        await stream.receive(5.0)
        await stream.send(manifest.frame(), 5.0)
        for chunk in chunks:
            await stream.send(Frame(Kind.CHUNK, chunk), 5.0)
        await stream.receive(5.0)

    return handler


def manifest_of(content, nbytes, describes=b"\x80"):
    return Manifest(nbytes=nbytes, chunks=(blake3(content).digest(),), describes=describes)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lying(manifest_of(b"good", 4), b"evil"), "does not match its hash"),
        (lying(manifest_of(b"good", 4), b"goo"), "CHUNK of 3 bytes"),
        (lying(manifest_of(b"good", 4), b"good!"), "CHUNK of 5 bytes"),
        (lying(manifest_of(b"good", CHUNK_BYTES + 1)), "do not fit together"),
        (lying(manifest_of(b"good", 0)), "do not fit together"),
    ],
    ids=["hash", "short", "long", "few-hashes", "many-hashes"],
)
def test_what_does_not_match_the_manifest_is_the_donors_fault(tmp_path, handler, message):
    async def asker(open_stream):
        with pytest.raises(PayloadError, match=message):
            await ask_once(open_stream)

    asyncio.run(run(handler, asker)(tmp_path))


@pytest.mark.parametrize("describes", [b"", b"\xc1", msgpack.packb([1]), b"\x81"])
def test_a_description_that_is_no_map_is_the_donors_fault(tmp_path, describes):
    async def asker(open_stream):
        with pytest.raises(PeerFault, match="description"):
            await ask_once(open_stream)

    handler = lying(manifest_of(b"good", 4, describes), b"good")
    asyncio.run(run(handler, asker)(tmp_path))


def test_a_donor_that_stalls_is_a_link_error(tmp_path):
    async def asker(open_stream):
        with pytest.raises(LinkError):
            await ask_once(open_stream, Limits(max_bytes=100, deadline_s=0.3))

    asyncio.run(run(lying(manifest_of(b"good", 4)), asker)(tmp_path))
