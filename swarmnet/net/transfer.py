"""Large things between peers: a manifest with one hash per chunk, then the chunks.

    asks    GET (what, first)              first: chunks that an earlier try already brought
    serves  MANIFEST (sizes, hashes, describes), CHUNK first, CHUNK first+1, ...
    ends    HAVE (number of chunks)

Exchange payloads need no hashes, because the stream is authenticated; these do, because they are
stored, resumed and asked of several donors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgpack
from blake3 import blake3

from swarmnet.errors import LinkError, MessageError, PayloadError
from swarmnet.exchange.transport import FrameStream
from swarmnet.net.stream import wait_closed
from swarmnet.wire import Frame, Kind
from swarmnet.wire.frame import CHUNK_BYTES
from swarmnet.wire.messages import Get, Have, Manifest

_ACKNOWLEDGE_S = 2.0


@dataclass(frozen=True)
class Limits:
    """What an asker is ready to hold and to wait for: bytes, and seconds without progress."""

    max_bytes: int
    deadline_s: float = 30.0


@dataclass
class Partial:
    """What has arrived so far. Hand it to the next ``fetch`` when a stream was cut."""

    hashes: tuple[bytes, ...] = ()
    data: bytearray = field(default_factory=bytearray)
    done: int = 0


@dataclass(frozen=True)
class Served:
    """Something to give away: a small msgpack-able map that describes it, and its bytes.

    ``hashes`` are computed once by ``prepare``, off the event loop, however many peers ask.
    """

    describes: bytes
    blob: memoryview
    hashes: tuple[bytes, ...]

    @classmethod
    async def prepare(
        cls, describes: Mapping[str, Any], blob: bytes | bytearray | memoryview
    ) -> Served:
        """``blob`` is not copied and must not change while it is served."""
        view = memoryview(blob).cast("B")
        hashes = await asyncio.to_thread(_hashes, view)
        return cls(msgpack.packb(dict(describes)), view, hashes)


async def serve_blob(stream: FrameStream, get: Get, served: Served, deadline_s: float) -> None:
    """Answer one ``Get``: the manifest, then every chunk from ``get.first`` on.

    Returns when the asker says that it has all. Raises LinkError when it goes away before.
    """
    manifest = Manifest(nbytes=len(served.blob), chunks=served.hashes, describes=served.describes)
    await stream.send(manifest.frame(), deadline_s)
    for start in range(get.first * CHUNK_BYTES, len(served.blob), CHUNK_BYTES):
        chunk = served.blob[start : start + CHUNK_BYTES]
        await stream.send(Frame(Kind.CHUNK, chunk), deadline_s)
    Have.parse(await stream.receive(deadline_s))


async def fetch(
    stream: FrameStream, get: Get, limits: Limits, partial: Partial | None = None
) -> tuple[dict[str, Any], bytearray]:
    """Ask for ``get.what``: (what describes it, its bytes), every chunk checked.

    With ``partial`` the chunks that it holds are not asked for again; ``get.first`` is set
    from it.

    Raises:
        LinkError: the stream ended or stalled; ``partial`` holds what came.
        PayloadError: a wrong hash, a size above ``limits``, or other content than ``partial``.
    """
    partial = partial if partial is not None else Partial()
    await stream.send(get.model_copy(update={"first": partial.done}).frame(), limits.deadline_s)
    manifest = Manifest.parse(await stream.receive(limits.deadline_s))
    _accept(manifest, limits, partial)
    while partial.done < len(partial.hashes):
        frame = await stream.receive(limits.deadline_s)
        _store(frame, partial)
    describes = _described(manifest)
    await _acknowledge(stream, partial.done)
    return describes, partial.data


async def _acknowledge(stream: FrameStream, chunks: int) -> None:
    """Everything is here: whether the donor still hears so changes nothing for us."""
    with suppress(LinkError):
        await stream.send(Have(round=chunks).frame(), _ACKNOWLEDGE_S)
        await wait_closed(stream, _ACKNOWLEDGE_S)


def _accept(manifest: Manifest, limits: Limits, partial: Partial) -> None:
    if manifest.nbytes > limits.max_bytes:
        raise PayloadError(f"{manifest.nbytes} bytes offered, at most {limits.max_bytes} wanted")
    if len(manifest.chunks) != -(-manifest.nbytes // CHUNK_BYTES):
        raise PayloadError("the manifest's sizes do not fit together")
    if partial.done == 0:
        partial.hashes, partial.data = manifest.chunks, bytearray(manifest.nbytes)
    elif (manifest.chunks, manifest.nbytes) != (partial.hashes, len(partial.data)):
        partial.done = 0
        raise PayloadError("the donor now serves something else: begin anew")


def _store(frame: Frame, partial: Partial) -> None:
    start = partial.done * CHUNK_BYTES
    expected = min(CHUNK_BYTES, len(partial.data) - start)
    if frame.kind is not Kind.CHUNK or len(frame.body) != expected:
        raise PayloadError(f"chunk {partial.done}: {frame.kind.name} of {len(frame.body)} bytes")
    if blake3(frame.body).digest() != partial.hashes[partial.done]:
        raise PayloadError(f"chunk {partial.done} does not match its hash")
    partial.data[start : start + expected] = frame.body
    partial.done += 1


def _described(manifest: Manifest) -> dict[str, Any]:
    try:
        describes = msgpack.unpackb(manifest.describes)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MessageError(f"MANIFEST: its description is no msgpack: {error}") from error
    if not isinstance(describes, dict):
        raise MessageError("MANIFEST: its description is no map")
    return describes


def _hashes(view: memoryview) -> tuple[bytes, ...]:
    starts = range(0, len(view), CHUNK_BYTES)
    return tuple(blake3(view[start : start + CHUNK_BYTES]).digest() for start in starts)
