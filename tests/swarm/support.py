"""Nodes on loopback with real daemons, started and ended around one test's coroutine."""

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path

from swarmnet.net.daemon import Listen
from swarmnet.net.identity import load_or_create
from swarmnet.net.node import Node, NodeOptions
from swarmnet.wire import Frame, Kind

FINGERPRINT = "ab" * 16
RUN_FILE = b'name = "demo"\nseed = 1\n'


def options(folder: Path, name: str, bootstrap=(), **changes) -> NodeOptions:
    fields = {
        "identity": load_or_create(folder / name),
        "fingerprint": FINGERPRINT,
        "run_file": RUN_FILE,
        "bootstrap": tuple(bootstrap),
        "listen": Listen("127.0.0.1"),
    }
    return NodeOptions(**(fields | changes))


@asynccontextmanager
async def nodes(folder: Path, count: int):
    """``count`` nodes of one run; the first is everybody's bootstrap."""
    started = []
    try:
        for index in range(count):
            bootstrap = started[0].addresses if started else ()
            started.append(await Node.start(options(folder, f"key{index}", bootstrap)))
        yield started
    finally:
        await asyncio.gather(*(node.close() for node in started))


def running(pid: int) -> bool:
    """Whether process ``pid`` exists and is more than a zombie that nobody has reaped yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and ") Z" in stat.read_text())


async def until(condition, within_s: float = 10.0) -> None:
    """Wait until ``condition()`` (plain or awaitable) holds; fail after ``within_s``."""
    async with asyncio.timeout(within_s):
        while True:
            held = condition()
            if asyncio.iscoroutine(held):
                held = await held
            if held:
                return
            await asyncio.sleep(0.02)


async def echo(stream) -> None:
    """A handler that says everything again."""
    while True:
        await stream.send(await stream.receive(10.0), 10.0)


async def say(node, peer: str, topic: str, body: bytes = b"hi") -> bytes:
    """One frame there and back on a new stream."""
    stream = await node.open(peer, topic, 5.0)
    try:
        await stream.send(Frame(Kind.PART, body), 5.0)
        return bytes((await stream.receive(5.0)).body)
    finally:
        await stream.close()
