"""Hashed chunks over real streams: whole, in the order asked for, refused."""

import asyncio
import random

import msgpack
import pytest
from blake3 import blake3
from support import nodes, until

from swarmnet.errors import DonorBusy, LinkError, MessageError, PayloadError, PeerFault, StreamCut
from swarmnet.net.transfer import Blob, Limits, Source, fetch_blob, give
from swarmnet.wire import Frame, Kind
from swarmnet.wire.frame import CHUNK_BYTES
from swarmnet.wire.messages import Busy, Get, Manifest, Want

BLOB = random.Random(3).randbytes(5 * CHUNK_BYTES + 123)
DESCRIBES = {"step": 7, "name": "state"}
LIMITS = Limits(max_bytes=len(BLOB), deadline_s=5.0)


def run(folder, handler, asker):
    """``handler`` serves on one node, ``asker(node, peer)`` asks from another; what it returns."""

    async def main():
        async with nodes(folder, 2) as (donor, joiner):
            await donor.serve("state", handler)
            return await asker(joiner, donor.me)

    return asyncio.run(main())


async def serve(stream):
    Get.parse(await stream.receive(5.0))
    await give(stream, Blob(BLOB, DESCRIBES), 5.0)


async def ask(node, peer, limits=LIMITS):
    return await fetch_blob(node, peer, "state", Get(what="state"), limits)


def test_it_arrives_whole_and_the_donor_knows_how_much_it_gave(tmp_path):
    given = []

    async def handler(stream):
        Get.parse(await stream.receive(5.0))
        given.append(await give(stream, Blob(BLOB, DESCRIBES), 5.0))

    async def asker(node, peer):
        result = await ask(node, peer)
        await until(lambda: given)
        return result

    assert run(tmp_path, handler, asker) == (DESCRIBES, BLOB)
    assert given == [len(BLOB)]


def test_nothing_is_a_blob_too(tmp_path):
    async def handler(stream):
        Get.parse(await stream.receive(5.0))
        await give(stream, Blob(b""), 5.0)

    assert run(tmp_path, handler, ask) == ({}, bytearray())


def test_chunks_come_in_the_order_in_which_they_are_wanted(tmp_path):
    async def asker(node, peer):
        stream = await node.open(peer, "state", 5.0)
        source = await Source.open(stream, Get(what="state"), LIMITS)
        await source.want([4, 0], 5.0)
        await source.want([5], 5.0)
        chunks = []
        for size in (CHUNK_BYTES, CHUNK_BYTES, 123):
            index, body = await source.receive(size, 5.0)
            source.check(index, body)
            chunks.append((index, bytes(body)))
        await stream.close()
        return chunks

    chunks = run(tmp_path, serve, asker)
    assert [index for index, _ in chunks] == [4, 0, 5]
    assert all(body == BLOB[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i, body in chunks)


def test_every_chunk_waits_for_the_pace_of_its_giver(tmp_path):
    waited = []

    async def pause(nbytes):
        waited.append(nbytes)

    async def handler(stream):
        Get.parse(await stream.receive(5.0))
        await give(stream, Blob(BLOB), 5.0, pause)

    run(tmp_path, handler, ask)
    assert waited == [CHUNK_BYTES] * 5 + [123]


def test_who_wants_what_there_is_not_gets_nothing(tmp_path):
    faults = []

    async def handler(stream):
        try:
            await serve(stream)
        except MessageError as error:
            faults.append(str(error))
            raise

    async def asker(node, peer):
        stream = await node.open(peer, "state", 5.0)
        await Source.open(stream, Get(what="state"), LIMITS)
        await stream.send(Want(chunks=(6,)).frame(), 5.0)
        with pytest.raises(StreamCut):
            await stream.receive(5.0)
        await stream.close()

    run(tmp_path, handler, asker)
    assert faults == ["WANT: chunk 6 of 6"]


def test_a_busy_donor_says_when_to_come_back(tmp_path):
    async def handler(stream):
        await stream.receive(5.0)
        await stream.send(Busy(reason="busy", retry_s=1e6).frame(), 5.0)
        await stream.receive(5.0)

    async def asker(node, peer):
        with pytest.raises(DonorBusy, match="is busy") as caught:
            await ask(node, peer)
        return caught.value.retry_s

    assert run(tmp_path, handler, asker) == 60.0


def test_more_than_wanted_is_refused_before_a_chunk_is_asked_for(tmp_path):
    async def asker(node, peer):
        with pytest.raises(PayloadError, match="at most"):
            await ask(node, peer, Limits(max_bytes=len(BLOB) - 1, deadline_s=5.0))

    run(tmp_path, serve, asker)


def lying(manifest, *chunks):
    async def handler(stream):
        await stream.receive(5.0)
        await stream.send(manifest.frame(), 5.0)
        for chunk in chunks:
            await stream.send(Frame(Kind.CHUNK, chunk), 5.0)
        await stream.receive(5.0)
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
    async def asker(node, peer):
        with pytest.raises(PayloadError, match=message):
            await ask(node, peer)

    run(tmp_path, handler, asker)


@pytest.mark.parametrize("describes", [b"", b"\xc1", msgpack.packb([1]), b"\x81"])
def test_a_description_that_is_no_map_is_the_donors_fault(tmp_path, describes):
    async def asker(node, peer):
        with pytest.raises(PeerFault, match="description"):
            await ask(node, peer)

    run(tmp_path, lying(manifest_of(b"good", 4, describes), b"good"), asker)


def test_a_donor_that_stalls_is_a_link_error(tmp_path):
    async def asker(node, peer):
        with pytest.raises(LinkError):
            await ask(node, peer, Limits(max_bytes=100, deadline_s=0.3))

    run(tmp_path, lying(manifest_of(b"good", 4)), asker)
