"""Nodes over real daemons on loopback."""

import asyncio
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from support import echo, nodes, options, running, say, until

from swarmnet.errors import (
    AddressError,
    DeadlinePassed,
    FrameError,
    LinkError,
    PayloadError,
    RunMismatchError,
    StreamCut,
    UnreachableError,
)
from swarmnet.net import serving
from swarmnet.net.daemon import Listen
from swarmnet.net.node import Node
from swarmnet.net.thread import NetThread
from swarmnet.wire import Frame, Kind, encode_header
from swarmnet.wire.frame import PART_BYTES

PAYLOAD_BYTES = 20 * 1024 * 1024


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine in a loop of its own, with asyncio's and with uvloop's."""
    return asyncio.run if request.param == "asyncio" else uvloop.run


def test_two_nodes_exchange_frames_both_ways(tmp_path, run):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):
            await one.serve("echo", echo)
            await two.serve("echo", echo)
            assert await say(one, two.me, "echo", b"there") == b"there"
            assert await say(two, one.me, "echo", b"and back") == b"and back"

    run(main())


def test_the_stream_knows_who_opened_it(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):
            seen = asyncio.get_running_loop().create_future()

            async def handler(stream):
                seen.set_result(stream.peer)

            await one.serve("who", handler)
            stream = await two.open(one.me, "who", 5.0)
            assert await asyncio.wait_for(seen, 5.0) == two.me
            assert stream.peer == one.me
            await stream.close()
            await stream.close()

    asyncio.run(main())


def test_three_nodes_find_each_other_through_one(tmp_path):
    async def main():
        async with nodes(tmp_path, 3) as (_, two, three):
            await three.serve("echo", echo)
            assert await say(two, three.me, "echo") == b"hi"
            await two.publish("peers", {"n": 2})
            await three.publish("peers", {"n": 3})
            assert await two.lookup("peers") == {two.me: {"n": 2}, three.me: {"n": 3}}
            await two.publish("peers", {"n": 4})
            assert (await three.lookup("peers"))[two.me] == {"n": 4}

    asyncio.run(main())


def test_a_large_payload_arrives_whole_behind_a_slow_reader(tmp_path, run):
    payload = random.Random(1).randbytes(PAYLOAD_BYTES)

    async def main():
        async with nodes(tmp_path, 2) as (one, two):
            gate = asyncio.Event()
            got = bytearray()

            async def handler(stream):
                await gate.wait()
                while len(got) < PAYLOAD_BYTES:
                    got.extend((await stream.receive(10.0)).body)
                await stream.send(Frame(Kind.HAVE, b""), 5.0)
                await stream.receive(5.0)

            await one.serve("bulk", handler)
            stream = await two.open(one.me, "bulk", 5.0)

            async def send():
                for start in range(0, PAYLOAD_BYTES, PART_BYTES):
                    part = memoryview(payload)[start : start + PART_BYTES]
                    await stream.send(Frame(Kind.PART, part), 10.0)

            sending = asyncio.create_task(send())
            before = -1
            while before != stream.bytes_sent:
                before = stream.bytes_sent
                await asyncio.wait([sending], timeout=0.3)
            assert before < PAYLOAD_BYTES // 2, "nobody read, yet the sender went on"
            gate.set()
            await sending
            assert (await stream.receive(10.0)).kind is Kind.HAVE
            assert bytes(got) == payload
            await stream.close()

    run(main())


def test_a_stalled_reader_is_a_passed_deadline(tmp_path, run):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):

            async def handler(stream):
                await asyncio.Event().wait()

            await one.serve("stall", handler)
            stream = await two.open(one.me, "stall", 5.0)
            began = time.monotonic()

            async def flood():
                while True:
                    await stream.send(Frame(Kind.PART, bytes(PART_BYTES)), 0.5)

            with pytest.raises(DeadlinePassed, match="took nothing"):
                await flood()
            with pytest.raises(DeadlinePassed, match="sent nothing"):
                await stream.receive(0.2)
            await stream.close()
            assert time.monotonic() - began < 5.0

    run(main())


def test_a_slow_but_moving_sender_meets_every_deadline(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):

            async def handler(stream):
                raw = encode_header(Kind.PART, 10) + bytes(10)
                for byte in raw:
                    await stream._pipe.send(b"", bytes([byte]), 5.0)
                    await asyncio.sleep(0.05)
                await stream.receive(5.0)

            await one.serve("slow", handler)
            stream = await two.open(one.me, "slow", 5.0)
            began = time.monotonic()
            assert len((await stream.receive(0.4)).body) == 10
            assert time.monotonic() - began > 0.5
            await stream.close()

    asyncio.run(main())


def test_a_stream_cut_inside_a_frame(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):

            async def handler(stream):
                await stream._pipe.send(b"", encode_header(Kind.PART, 100) + bytes(50), 5.0)
                await stream.close()

            await one.serve("cut", handler)
            stream = await two.open(one.me, "cut", 5.0)
            with pytest.raises(StreamCut):
                await stream.receive(5.0)
            await stream.close()

    asyncio.run(main())


def test_bytes_that_are_no_frame(tmp_path):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):

            async def handler(stream):
                await stream._pipe.send(b"", b"GET / HTTP/1.1\r\n\r\n", 5.0)
                await stream.receive(5.0)

            await one.serve("web", handler)
            stream = await two.open(one.me, "web", 5.0)
            with pytest.raises(FrameError, match="not a swarmnet frame"):
                await stream.receive(5.0)
            await stream.close()

    asyncio.run(main())


def test_hello_welcomes_the_same_run_and_names_what_differs(tmp_path):
    async def main():
        async with nodes(tmp_path, 1) as (one,):
            other = await Node.start(
                options(
                    tmp_path,
                    "other",
                    one.addresses,
                    fingerprint="cd" * 16,
                    run_file=b'name = "demo"\nseed = 2\n',
                )
            )
            same = await Node.start(options(tmp_path, "same", one.addresses))
            try:
                await same.hello(one.me)
                with pytest.raises(RunMismatchError, match="seed: 2 -> 1"):
                    await other.hello(one.me)
                with pytest.raises(LinkError):
                    await say(other, one.me, "echo")
            finally:
                await asyncio.gather(other.close(), same.close())

    asyncio.run(main())


def test_another_wire_version_says_update(tmp_path, monkeypatch):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):

            async def newer(stream):
                await stream.receive(5.0)
                raw = bytearray(encode_header(Kind.WELCOME, 0))
                raw[4] = 2
                await stream._pipe.send(b"", bytes(raw), 5.0)
                await stream.receive(5.0)

            one._server.handlers["swarmnet/hello"] = newer
            with pytest.raises(RunMismatchError, match="update swarmnet"):
                await two.hello(one.me)

    asyncio.run(main())


def dead_address(tmp_path, name="gone"):
    """A full address with nobody behind it."""
    peer = options(tmp_path, name).identity.peer_id
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}/p2p/{peer}"


def test_one_dead_bootstrap_of_two_costs_nothing(tmp_path):
    async def main():
        async with nodes(tmp_path, 1) as (one,):
            began = time.monotonic()
            bootstrap = [dead_address(tmp_path), *one.addresses]
            two = await Node.start(options(tmp_path, "two", bootstrap))
            took = time.monotonic() - began
            await one.serve("echo", echo)
            assert await say(two, one.me, "echo") == b"hi"
            await two.close()
            assert took < 8.0

    asyncio.run(main())


def test_every_bootstrap_dead_says_what_to_check(tmp_path):
    async def main():
        bootstrap = [dead_address(tmp_path, "gone1"), dead_address(tmp_path, "gone2")]
        with pytest.raises(UnreachableError, match="fresh invite") as caught:
            await Node.start(options(tmp_path, "me", bootstrap))
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)

    asyncio.run(main())


def test_my_own_address_is_no_bootstrap(tmp_path):
    async def main():
        mine = options(tmp_path, "me")
        address = f"/ip4/127.0.0.1/tcp/9/p2p/{mine.identity.peer_id}"
        node = await Node.start(options(tmp_path, "me", [address]))
        await node.close()

    asyncio.run(main())


def test_a_port_in_use_is_the_users_act(tmp_path):
    async def main():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            listen = Listen("127.0.0.1", taken.getsockname()[1])
            with pytest.raises(AddressError, match="choose another port"):
                await Node.start(options(tmp_path, "me", listen=listen))

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong", [{"host": "localhost"}, {"host": ""}, {"announce": ("192.0.2.7:4001",)}]
)
def test_places_that_are_none_are_the_users_act(wrong):
    with pytest.raises(AddressError):
        Listen(**wrong)


def test_announced_addresses_come_first(tmp_path):
    async def main():
        listen = Listen("127.0.0.1", 0, ("/ip4/192.0.2.7/tcp/4001",))
        node = await Node.start(options(tmp_path, "me", listen=listen))
        assert node.addresses[0] == f"/ip4/192.0.2.7/tcp/4001/p2p/{node.me}"
        await node.close()

    asyncio.run(main())


def test_nobody_there_is_a_link_error(tmp_path):
    async def main():
        async with nodes(tmp_path, 1) as (one,):
            nobody = options(tmp_path, "nobody").identity.peer_id
            with pytest.raises(LinkError):
                await one.open(nobody, "echo", 3.0)

    asyncio.run(main())


def test_a_killed_daemon_is_back_with_everything(tmp_path, run):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):
            await one.serve("echo", echo)
            await one.publish("peers", {"n": 1})
            await two.publish("peers", {"n": 2})
            stream = await two.open(one.me, "echo", 5.0)
            back = asyncio.get_running_loop().create_future()
            one.on_restart = back.set_result
            pid, addresses = one.daemon_pid, one.addresses
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(LinkError):
                await stream.receive(5.0)
            await stream.close()
            assert await asyncio.wait_for(back, 5.0) < 3.0
            assert one.daemon_pid != pid
            assert one.addresses == addresses

            async def answers():
                try:
                    return await say(two, one.me, "echo") == b"hi"
                except LinkError:
                    return False

            async def found():
                return set(await two.lookup("peers")) == {one.me, two.me}

            await until(answers)
            await until(found)
            assert (await one.lookup("peers"))[one.me] == {"n": 1}

    run(main())


def test_three_deaths_within_a_minute_end_the_node(tmp_path):
    async def main():
        async with nodes(tmp_path, 1) as (one,):
            while not one.failed.done():
                pid = one.daemon_pid
                if pid:
                    os.kill(pid, signal.SIGKILL)
                await until(lambda pid=pid: one.failed.done() or one.daemon_pid not in (0, pid))
            with pytest.raises(UnreachableError, match="died 3 times"):
                await one.failed

    asyncio.run(main())


@pytest.fixture
def short_folder():
    """A folder of its own whose name leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as made:
        yield Path(made)


def test_close_leaves_no_process_no_file_no_task(tmp_path, short_folder, run, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))

    async def main():
        async with nodes(tmp_path, 2) as (one, two):
            await one.serve("echo", echo)
            stream = await two.open(one.me, "echo", 5.0)
            for _ in range(5):
                await one.publish("peers", {"n": 1})
                await two.lookup("peers")
            pids = [one.daemon_pid, two.daemon_pid]
            assert len(list(short_folder.iterdir())) == 2
            await one.close()
            began = time.monotonic()
            await two.close()
            assert time.monotonic() - began < 2.0
            await stream.close()
        assert not any(running(pid) for pid in pids)
        assert list(short_folder.iterdir()) == []
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, 5.0)

    run(main())


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support import options
from swarmnet.net.node import Node

async def main():
    node = await Node.start(options(Path(sys.argv[2]), "killed"))
    print(node.daemon_pid, node._folder.path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_the_daemon_dies_with_a_killed_parent_and_its_folder_is_swept(tmp_path):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=root)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, left = done.stdout.split()

    async def main():
        await until(lambda: not running(int(pid)), 3.0)
        async with nodes(tmp_path, 1):
            pass

    asyncio.run(main())
    assert not Path(left).exists()


def test_what_handlers_raise_ends_their_stream_only(tmp_path, caplog):
    async def main():
        async with nodes(tmp_path, 2) as (one, two):

            async def fails(stream):
                what = bytes((await stream.receive(5.0)).body)
                raise {b"link": StreamCut, b"fault": PayloadError, b"bug": KeyError}[what](what)

            await one.serve("fails", fails)
            await one.serve("echo", echo)
            for what in (b"link", b"fault", b"bug"):
                with pytest.raises(LinkError):
                    await say(two, one.me, "fails", what)
            assert await say(two, one.me, "echo") == b"hi"

    with caplog.at_level(logging.INFO, "swarmnet"):
        asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "a bug of ours" in caplog.text


def test_streams_beyond_the_limit_are_closed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "MAX_STREAMS", 2)

    async def main():
        async with nodes(tmp_path, 2) as (one, two):
            await one.serve("echo", echo)
            held = [await two.open(one.me, "echo", 5.0) for _ in range(2)]
            for stream in held:
                await stream.send(Frame(Kind.HAVE, b"x"), 5.0)
                await stream.receive(5.0)
            with pytest.raises(LinkError):
                await say(two, one.me, "echo")
            await held.pop().close()

            async def room():
                try:
                    return await say(two, one.me, "echo") == b"hi"
                except LinkError:
                    return False

            await until(room)
            await held.pop().close()

    asyncio.run(main())


def test_a_node_lives_in_the_network_thread(tmp_path):
    thread = NetThread().start()
    node = thread.run(Node.start(options(tmp_path, "me")))
    thread.run(node.publish("peers", {"n": 1}))
    assert thread.submit(node.lookup("peers")).result(5.0) == {node.me: {"n": 1}}
    pid = node.daemon_pid
    thread.run(node.close())
    thread.stop()
    thread.stop()
    assert not running(pid)
    with pytest.raises(RuntimeError):
        thread.run(node.lookup("peers"))


def test_stopping_the_thread_cancels_what_waits(tmp_path):
    thread = NetThread().start()
    waiting = thread.submit(asyncio.sleep(3600))
    thread.stop()
    assert waiting.cancelled()


def test_importing_leaves_logging_as_it_was():
    code = (
        "import logging; import swarmnet.net.node; "
        "assert not logging.getLogger('hivemind').handlers; "
        "assert not logging.getLogger().handlers; "
        "assert logging.getLevelName(logging.WARNING) == 'WARNING'; "
        "assert not logging.getLogger('hivemind.dht').isEnabledFor(logging.WARNING)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_a_topic_that_is_served_again_gets_the_new_handler(tmp_path):
    async def other(stream):
        frame = await stream.receive(10)
        await stream.send(Frame(frame.kind, b"other"), 10)

    async def main():
        async with nodes(tmp_path, 2) as (one, two):
            await two.serve("echo", echo)
            assert await say(one, two.me, "echo", b"there") == b"there"
            await two.serve("echo", other)
            assert await say(one, two.me, "echo", b"there") == b"other"

    asyncio.run(main())


@pytest.fixture
def scarce():
    """Takes all file descriptors but ``left``; gives them back at the end."""
    held = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def take(left):
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        give(left)

    def give(count=None):
        for _ in range(len(held) if count is None else count):
            os.close(held.pop())

    yield take, give
    give()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_file_descriptors_a_node_waits_and_says_so_once(
    tmp_path, scarce, caplog, monkeypatch
):
    monkeypatch.setattr(serving, "_PAUSE_S", 0.05)
    take, give = scarce

    async def main():
        async with nodes(tmp_path, 2) as (one, two):
            await one.serve("echo", echo)
            take(0)
            with pytest.raises(LinkError, match="Too many open files"):
                await two.open(one.me, "echo", 1.0)
            give(1)
            with suppress(LinkError):
                stream = await two.open(one.me, "echo", 1.0)
                with pytest.raises(LinkError):
                    await stream.receive(1.0)
                await stream.close()
            give()

            async def answers():
                try:
                    return await say(two, one.me, "echo") == b"hi"
                except LinkError:
                    return False

            await until(answers, 20.0)
            assert not one.failed.done()

    asyncio.run(main())
    said = [record.getMessage() for record in caplog.records if record.name.startswith("swarmnet")]
    assert len([line for line in said if "no stream can be accepted" in line]) == 1
