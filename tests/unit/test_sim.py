"""Virtual time and the simulated network keep their own laws."""

import asyncio
import time

import pytest

from swarmnet.errors import DeadlinePassed, LinkError, StreamCut
from swarmnet.sim import clock
from swarmnet.sim.network import Cut, Link, SimNetwork
from swarmnet.sim.stream import WINDOW_BYTES
from swarmnet.wire import HEADER_BYTES, Frame, Kind

ANN, BOB = "peerAnnAnn", "peerBobBob"
PART = Frame(Kind.PART, bytes(100 - HEADER_BYTES))
BIG = Frame(Kind.PART, bytes(400_000 - HEADER_BYTES))


# ---- the clock --------------------------------------------------------------------------------


def test_time_passes_only_while_everybody_waits():
    async def main():
        assert clock.now() == 0.0
        for _ in range(1000):
            await asyncio.sleep(0)
        assert clock.now() == 0.0
        await asyncio.sleep(86_400)
        return clock.now()

    began = time.monotonic()
    assert clock.run(main()) == pytest.approx(86_400)
    assert time.monotonic() - began < 60


def test_timers_fire_in_their_order_and_at_their_times():
    async def main():
        seen = []

        async def wait(for_s):
            await asyncio.sleep(for_s)
            seen.append((for_s, round(clock.now(), 9)))

        await asyncio.gather(*(wait(for_s) for for_s in (3.0, 0.1, 2.0, 0.2, 1e-7)))
        return seen

    assert clock.run(main()) == [
        (w, pytest.approx(w, abs=2e-9)) for w in (1e-7, 0.1, 0.2, 2.0, 3.0)
    ]


def test_a_timeout_costs_virtual_seconds():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.Event().wait()
        return clock.now()

    assert clock.run(main()) == pytest.approx(7)


def test_waiting_for_what_never_comes_is_a_deadlock():
    async def main():
        await asyncio.Event().wait()

    with pytest.raises(clock.Deadlock):
        clock.run(main())


def test_after_a_deadlock_the_next_simulation_starts_at_zero():
    async def stuck():
        await asyncio.sleep(5)
        await asyncio.Future()

    async def main():
        return clock.now()

    with pytest.raises(clock.Deadlock):
        clock.run(stuck())
    assert clock.run(main()) == 0.0


# ---- the network ------------------------------------------------------------------------------


class Ends:
    """Two joined streams and what arrived at the far one, with its time."""

    def __init__(self, link=None, cuts=()):
        self.network = SimNetwork(lambda a, b: link or Link())
        self.network.cuts.extend(cuts)
        self.arrived = []
        self.ended_at = None
        self.reading = True

    async def join(self):
        self.far = asyncio.get_running_loop().create_future()
        self.release = asyncio.Event()

        async def handler(stream):
            self.far.set_result(stream)
            await self.release.wait()

        await self.network.transport(BOB).serve("topic", handler)
        self.near = await self.network.transport(ANN).open(BOB, "topic", 10)
        await asyncio.sleep(0)
        self.far = self.far.result()
        return self

    async def read(self, stream, deadline_s=1000.0):
        try:
            while True:
                frame = await stream.receive(deadline_s)
                self.arrived.append((frame, clock.now()))
        except StreamCut:
            self.ended_at = clock.now()


def test_a_frame_takes_its_length_over_the_bandwidth_plus_the_latency():
    async def main():
        ends = await Ends(Link(latency_s=0.5, bandwidth=50.0)).join()
        start = clock.now()
        assert start == pytest.approx(1.0)  # opening costs a round trip
        for _ in range(3):
            await ends.near.send(PART, 10)
        assert clock.now() == start
        await ends.near.close()
        await ends.read(ends.far)
        times = [at - start for _, at in ends.arrived]
        assert times == pytest.approx([2.5, 4.5, 6.5])
        assert ends.ended_at - start == pytest.approx(6.5)
        ends.release.set()

    clock.run(main())


def test_the_two_directions_do_not_share_bandwidth():
    async def main():
        ends = await Ends(Link(latency_s=0.5, bandwidth=50.0)).join()
        start = clock.now()
        await ends.near.send(PART, 10)
        await ends.far.send(PART, 10)
        await asyncio.gather(ends.near.receive(10), ends.far.receive(10))
        assert clock.now() - start == pytest.approx(2.5)
        ends.release.set()

    clock.run(main())


def test_a_sender_waits_while_nobody_reads():
    async def main():
        ends = await Ends().join()
        sent = 0
        while ends.near._out.unread <= WINDOW_BYTES:
            await ends.near.send(BIG, 5)
            sent += 1
        assert sent == WINDOW_BYTES // BIG.wire_bytes + 1
        with pytest.raises(DeadlinePassed):
            await ends.near.send(BIG, 5)
        assert clock.now() == pytest.approx(5, abs=0.1)
        ends.release.set()

    clock.run(main())


def test_a_sender_that_waits_for_room_hears_of_the_cut_and_sends_nothing_after_it():
    async def main():
        ends = await Ends().join()
        for _ in range(3):
            await ends.near.send(BIG, 5)
        waiting = asyncio.create_task(ends.near.send(BIG, 100))
        await asyncio.sleep(1)
        ends.network.partition(ANN, BOB)
        with pytest.raises(StreamCut):
            await waiting
        await ends.read(ends.far)
        assert len(ends.arrived) == 3
        with pytest.raises(StreamCut):
            await ends.far.receive(5)
        ends.release.set()

    clock.run(main())


@pytest.mark.parametrize(("after_bytes", "whole"), [(0, 0), (99, 0), (100, 1), (299, 2)])
def test_a_cut_lets_whole_frames_through(after_bytes, whole):
    async def main():
        ends = await Ends(cuts=[Cut(ANN, ANN, after_bytes, "topic")]).join()
        for _ in range(whole):
            await ends.near.send(PART, 5)
        for _ in range(2):
            with pytest.raises(StreamCut):
                await ends.near.send(PART, 5)
        await ends.read(ends.far)
        await ends.read(ends.near)
        assert len(ends.arrived) == whole
        ends.release.set()

    clock.run(main())


def test_a_cut_is_for_one_stream_of_its_opener_and_topic():
    async def main():
        cuts = [Cut(BOB, BOB, 0, "topic"), Cut(ANN, ANN, 0, "ask"), Cut(ANN, ANN, 0, "topic")]
        ends = await Ends(cuts=cuts).join()
        assert [cut.used for cut in cuts] == [False, False, True]
        with pytest.raises(StreamCut):
            await ends.near.send(PART, 5)
        ends.release.set()

    clock.run(main())


def test_receive_gives_up_after_its_deadline_and_the_stream_lives_on():
    async def main():
        ends = await Ends().join()
        with pytest.raises(DeadlinePassed):
            await ends.far.receive(3)
        await ends.near.send(PART, 5)
        assert await ends.far.receive(3) == PART
        ends.release.set()

    clock.run(main())


def test_a_frozen_peer_reads_and_writes_nothing_and_loses_nothing():
    async def main():
        ends = await Ends().join()
        ends.network.freeze(BOB, 30)
        start = clock.now()
        await ends.near.send(PART, 5)
        assert await ends.far.receive(5) == PART
        assert clock.now() - start == pytest.approx(30)
        ends.network.freeze(ANN, 10)
        await ends.near.send(PART, 5)
        assert clock.now() - start == pytest.approx(40)
        ends.release.set()

    clock.run(main())


def test_a_crash_ends_streams_tasks_and_handlers():
    async def main():
        ends = await Ends().join()
        ends.network.crash(BOB)
        await ends.read(ends.near)
        assert ends.ended_at is not None
        door = ends.network.transport(ANN)
        with pytest.raises(LinkError):
            await door.open(BOB, "topic", 5)
        ends.network.restart(BOB)
        with pytest.raises(LinkError):
            await door.open(BOB, "topic", 5)  # the new process serves nothing yet
        await ends.network.transport(BOB).serve("topic", lambda stream: asyncio.sleep(0))
        await door.open(BOB, "topic", 5)
        assert ends.network.bugs == []

    clock.run(main())


def test_a_partition_breaks_streams_both_ways_until_it_heals():
    async def main():
        for walls in ((ANN, BOB), (BOB, ANN)):
            ends = await Ends().join()
            ends.network.partition(*walls)
            with pytest.raises(StreamCut):
                await ends.near.send(PART, 5)
            door = ends.network.transport(ANN)
            with pytest.raises(LinkError):
                await door.open(BOB, "topic", 5)
            ends.network.heal(*walls)
            ends.release.set()
            await ends.network.transport(BOB).serve("topic", lambda s: asyncio.sleep(0))
            await door.open(BOB, "topic", 5)

    clock.run(main())


def test_opening_takes_a_round_trip_within_the_deadline():
    async def main():
        network = SimNetwork(lambda a, b: Link(latency_s=2.0))
        await network.transport(BOB).serve("topic", lambda stream: asyncio.sleep(0))
        with pytest.raises(DeadlinePassed):
            await network.transport(ANN).open(BOB, "topic", 3.0)
        await network.transport(ANN).open(BOB, "topic", 5.0)
        assert clock.now() == pytest.approx(3.0 + 4.0)

    clock.run(main())


def test_an_error_in_a_handler_is_kept_for_the_test_to_see():
    async def main():
        network = SimNetwork()

        async def handler(stream):
            raise ZeroDivisionError

        await network.transport(BOB).serve("topic", handler)
        stream = await network.transport(ANN).open(BOB, "topic", 5)
        with pytest.raises(StreamCut):
            await stream.receive(5)
        assert [type(bug) for bug in network.bugs] == [ZeroDivisionError]

    clock.run(main())
