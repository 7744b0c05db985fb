"""A pipe to the daemon: deadlines on progress, back-pressure, and an end that wakes who waits."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from swarmnet.errors import DeadlinePassed, StreamCut
from swarmnet.net.pipe import Pipe

BULK = bytes(range(256)) * 16384


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs ``main(one, two)`` with both ends of a pipe, in asyncio's loop and in uvloop's."""

    def runner(main) -> None:
        async def both() -> None:
            one, two = (Pipe(end) for end in socket.socketpair(socket.AF_UNIX))
            try:
                await main(one, two)
            finally:
                one.close()
                two.close()

        (asyncio.run if request.param == "asyncio" else uvloop.run)(both())

    return runner


def test_more_than_the_kernel_holds_arrives_whole(run):
    async def main(one, two):
        sending = asyncio.create_task(one.send(b"head", BULK, 5.0))
        assert await two.receive(4, 5.0) == b"head"
        landing = bytearray(len(BULK))
        await two.receive_into(memoryview(landing), 5.0)
        await sending
        assert landing == BULK
        assert one.bytes_sent == two.bytes_received == 4 + len(BULK)

    run(main)


def test_nothing_moves_in_either_direction(run):
    async def main(one, two):
        with pytest.raises(DeadlinePassed, match="took nothing"):
            await one.send(b"", BULK, 0.05)
        with pytest.raises(DeadlinePassed, match="sent nothing"):
            await one.receive(1, 0.05)

    run(main)


def test_a_slow_reader_that_moves_meets_every_deadline(run):
    async def main(one, two):
        sending = asyncio.create_task(one.send(b"", BULK, 0.4))
        while not sending.done():
            await two.receive(64 * 1024, 5.0)
            await asyncio.sleep(0.02)
        await sending

    run(main)


def test_closing_wakes_who_waits(run):
    async def main(one, two):
        waits = asyncio.create_task(one.receive(1, 5.0))
        await asyncio.sleep(0)
        one.close()
        with pytest.raises(StreamCut):
            await waits
        with pytest.raises(StreamCut):
            await two.receive(1, 5.0)

    run(main)


def test_a_cancelled_wait_leaves_nothing_registered(run):
    async def main(one, two):
        waits = asyncio.create_task(one.receive(1, 5.0))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        await two.send(b"", b"x", 5.0)
        assert await one.receive(1, 5.0) == b"x"

    run(main)
