"""A simulated swarm keeps the laws that its users count on: lines, latencies, clocks, scripts."""

import asyncio
import math
import random
import re
import statistics
from pathlib import Path

import pytest

from swarmnet.sim import clock
from swarmnet.sim.network import Access, Link, SimNetwork
from swarmnet.sim.peer import SimOptions
from swarmnet.sim.script import Churn, Script, churn
from swarmnet.sim.swarm import Swarm, peer_name
from swarmnet.wire import HEADER_BYTES, Frame, Kind
from tests.unit.swarms import LAW, choice, drift, one_sided

FRAME = Frame(Kind.PART, bytes(1000 - HEADER_BYTES))
WAN = Link(0.05, 1e6, sigma=1.0)


def options(h=3, **others):
    matching, cadence = choice("matching", "random_pairs"), choice("cadence", "every_h", h=h)
    return SimOptions(matching, cadence, **others)


async def settled(swarm):
    for _ in range(20):
        await asyncio.sleep(30)
        if not any(len(peer.gossip.pending) for peer in swarm.live):
            break
    for peer in swarm.live:
        peer.gossip.paused = True
    await asyncio.sleep(30)
    assert swarm.network.bugs == []


# ---- latencies ----------------------------------------------------------------------------------


def test_latencies_are_log_normal_with_the_mean_and_the_sigma_that_were_asked_for():
    link, rng = Link(0.05, sigma=1.0), random.Random(1)
    drawn = [link.draw(rng) for _ in range(100_000)]
    logs = [math.log(seconds) for seconds in drawn]
    assert statistics.fmean(drawn) == pytest.approx(0.05, rel=0.03)
    assert statistics.stdev(logs) == pytest.approx(1.0, rel=0.01)
    assert statistics.fmean(logs) == pytest.approx(math.log(0.05) - 0.5, abs=0.02)
    assert {Link(0.05).draw(rng) for _ in range(10)} == {0.05}


async def carried(network, frames=200):
    """Order and times of what one stream carries."""
    seen = []
    done = asyncio.Event()

    async def handler(stream):
        for _ in range(frames):
            frame = await stream.receive(1000)
            seen.append((int(frame.body), clock.now()))
        done.set()

    await network.transport(peer_name(1)).serve("topic", handler)
    stream = await network.transport(peer_name(0)).open(peer_name(1), "topic", 1000)
    for number in range(frames):
        await stream.send(Frame(Kind.PART, str(number).encode()), 1000)
    await done.wait()
    return seen


def test_messages_of_one_stream_keep_their_order_whatever_their_latencies():
    seen = clock.run(carried(SimNetwork(lambda a, b: WAN)))
    assert [number for number, _ in seen] == list(range(200))
    assert len({at for _, at in seen}) > 1


def test_the_seed_decides_the_latencies():
    networks = (SimNetwork(lambda a, b: WAN, seed=seed) for seed in (1, 1, 2))
    first, again, other = (clock.run(carried(network)) for network in networks)
    assert first == again
    assert first != other


# ---- lines --------------------------------------------------------------------------------------


async def transfer(access, pairs, frames=50):
    """Seconds until ``frames`` of 1,000 bytes have gone over a stream for each of ``pairs``."""
    network = SimNetwork(lambda a, b: Link(0.0, 1e6), access)
    read = asyncio.Queue()

    async def handler(stream):
        for _ in range(frames):
            await stream.receive(1000)
        read.put_nowait(clock.now())

    for number in range(4):
        await network.transport(peer_name(number)).serve("topic", handler)

    async def send(sender, receiver):
        stream = await network.transport(peer_name(sender)).open(peer_name(receiver), "topic", 1000)
        for _ in range(frames):
            await stream.send(FRAME, 1000)

    await asyncio.gather(*(send(*pair) for pair in pairs))
    return max([await read.get() for _ in pairs])


SLOW_UP = Access(up=1e4)
SLOW_DOWN = Access(down=1e4)


@pytest.mark.parametrize(
    ("access", "pairs", "seconds"),
    [
        (SLOW_UP, [(0, 1)], 5.0),
        (SLOW_UP, [(0, 1), (0, 2)], 10.0),
        (SLOW_UP, [(0, 2), (1, 2)], 5.0),
        (SLOW_DOWN, [(0, 1)], 5.0),
        (SLOW_DOWN, [(0, 1), (0, 2)], 5.0),
        (SLOW_DOWN, [(0, 2), (1, 2)], 10.0),
        (Access(), [(0, 1), (0, 2)], 0.05),
    ],
)
def test_streams_of_one_peer_share_its_line(access, pairs, seconds):
    took = clock.run(transfer(lambda peer: access, pairs))
    assert took == pytest.approx(seconds, rel=0.03, abs=0.02)


def test_two_streams_on_one_line_are_done_together():
    """Neither waits for the whole of the other: the line takes turns."""

    async def main():
        network = SimNetwork(lambda a, b: Link(0.0, 1e9), lambda peer: Access(up=1e6))
        ends = asyncio.Queue()

        async def handler(stream):
            for _ in range(400):
                await stream.receive(1000)
            ends.put_nowait(clock.now())

        async def send(receiver):
            await network.transport(receiver).serve("topic", handler)
            stream = await network.transport(peer_name(0)).open(receiver, "topic", 1000)
            for _ in range(400):
                await stream.send(Frame(Kind.PART, bytes(20_000)), 1000)

        await asyncio.gather(*(send(peer_name(number)) for number in (1, 2)))
        return await ends.get(), await ends.get()

    first, second = clock.run(main())
    assert second == pytest.approx(16.0, rel=0.02)
    assert second - first < 0.1 * second


# ---- clocks -------------------------------------------------------------------------------------


def lived(offsets_s):
    async def main():
        network = SimNetwork(lambda a, b: WAN, seed=3)
        swarm = await Swarm(6, options(), network, 5, offsets_s).start()
        swarm.play(Script().crash(1, at=40).restart(1, at=70).partition([0, 1], [2, 3], (90, 110)))
        await asyncio.sleep(200)
        assert network.bugs == []
        ends = [[(e.outcome, e.partner) for e in peer.events] for peer in swarm.peers]
        return ends, network.traffic.frames, [peer.subject.live.tobytes() for peer in swarm.peers]

    return clock.run(main())


def test_clocks_ten_minutes_apart_change_nothing():
    assert lived([600.0, 0.0, 300.5, 0.0, 599.0, 3600.0]) == lived([])


# ---- scripts ------------------------------------------------------------------------------------


def test_a_crash_and_a_restart_by_the_clock():
    async def main():
        swarm = await Swarm(4, options()).start()
        swarm.play(Script().restart(2, at=50).crash(2, at=30))
        await asyncio.sleep(29)
        first = swarm.peers[2]
        assert len(swarm.live) == 4
        await asyncio.sleep(2)
        assert [peer.me for peer in swarm.live] == [peer_name(n) for n in (0, 1, 3)]
        steps = first.steps
        await asyncio.sleep(20)
        assert first.steps == steps
        second = swarm.peers[2]
        assert second is not first
        assert swarm.former == [first]
        assert second.status().incarnation > first.status().incarnation
        await asyncio.sleep(60)
        assert any(event.outcome == "ok" for event in second.events)

    clock.run(main())


def test_a_joiner_gets_the_next_number_and_meets():
    async def main():
        swarm = await Swarm(3, options()).start()
        swarm.play(Script().join(at=20))
        await asyncio.sleep(60)
        assert [peer.me for peer in swarm.peers] == [peer_name(n) for n in range(4)]
        assert any(event.outcome == "ok" for event in swarm.peers[3].events)

    clock.run(main())


def test_a_slow_peer_steps_less_and_stalls_nobody():
    async def main():
        swarm = await Swarm(4, options()).start()
        swarm.play(Script().slow(0, by=10))
        await asyncio.sleep(200)
        slow, *others = [peer.steps for peer in swarm.peers]
        assert slow == pytest.approx(20, abs=2)
        assert min(others) > 190
        assert any(event.outcome == "ok" for event in swarm.peers[0].events)

    clock.run(main())


def test_a_frozen_peer_does_nothing_until_it_thaws():
    async def main():
        swarm = await Swarm(3, options()).start()
        swarm.play(Script().freeze(1, at=20, for_s=40))
        await asyncio.sleep(25)
        steps = swarm.peers[1].steps
        await asyncio.sleep(30)
        assert swarm.peers[1].steps == steps
        assert swarm.peers[0].membership.is_dead(swarm.peers[1].me, swarm.peers[0].clock())
        await asyncio.sleep(30)
        assert swarm.peers[1].steps > steps
        await settled(swarm)
        assert drift(swarm.peers) < LAW

    clock.run(main())


def test_halves_that_are_parted_drift_apart_and_come_together_again():
    async def main():
        swarm = await Swarm(8, options()).start()
        left, right = [0, 1, 2, 3], [4, 5, 6, 7]
        names = {peer.me: number for number, peer in enumerate(swarm.peers)}
        swarm.play(Script().partition(left, right, during=(50, 200)))
        await asyncio.sleep(52)
        before = [len(peer.events) for peer in swarm.peers]
        await asyncio.sleep(147)
        for number, peer in enumerate(swarm.peers):
            since = peer.events[before[number] :]
            met = {names[event.partner] for event in since if event.outcome == "ok"}
            assert met
            assert all((other in left) == (number in left) for other in met)
        before = [len(peer.events) for peer in swarm.peers]
        await asyncio.sleep(100)
        across = [
            event
            for number in left
            for event in swarm.peers[number].events[before[number] :]
            if event.outcome == "ok" and names[event.partner] in right
        ]
        assert across
        await settled(swarm)
        assert drift(swarm.peers) < LAW
        assert one_sided(swarm.peers) == []

    clock.run(main())


def test_a_wall_stands_while_either_of_two_partitions_lasts():
    async def main():
        swarm = await Swarm(2, options()).start()
        swarm.play(Script().partition(0, 1, (10, 40)).partition([0], [1], (20, 60)))
        await asyncio.sleep(50)
        before = swarm.outcomes()["ok"]
        await asyncio.sleep(9)
        assert swarm.outcomes()["ok"] == before
        await asyncio.sleep(40)
        assert swarm.outcomes()["ok"] > before

    clock.run(main())


def test_a_scripted_cut_breaks_the_next_meeting_of_its_opener():
    async def main():
        swarm = await Swarm(3, options()).start()
        swarm.play(Script().cut(opener=0, sender=0, after_bytes=0, at=20))
        await asyncio.sleep(19)
        assert swarm.outcomes()["failed"] == 0
        await asyncio.sleep(30)
        assert swarm.outcomes()["failed"] == 1
        assert [cut.used for cut in swarm.network.cuts] == [True]

    clock.run(main())


def test_an_act_that_fails_is_not_swallowed():
    async def main():
        swarm = await Swarm(1, options()).start()
        swarm.play(Script().crash(7, at=5))
        await asyncio.sleep(6)
        assert [type(bug) for bug in swarm.network.bugs] == [IndexError]

    clock.run(main())


# ---- churn --------------------------------------------------------------------------------------


def test_churn_has_its_rate_and_keeps_the_swarm_at_its_size():
    trace = churn(100, Churn(per_s=0.001, away_s=20.0), 10_000.0, seed=1)
    seen = [what for _, _, what in trace]
    assert seen.count("crash") == pytest.approx(1000, rel=0.1)
    assert seen.count("restart") == pytest.approx(seen.count("crash") / 2, rel=0.15)
    assert 0 <= seen.count("crash") - seen.count("join") - seen.count("restart") < 10
    assert [at for at, _, _ in trace] == sorted(at for at, _, _ in trace)
    assert [peer for _, peer, what in trace if what == "join"] == list(
        range(100, 100 + seen.count("join"))
    )
    assert trace == churn(100, Churn(per_s=0.001, away_s=20.0), 10_000.0, seed=1)
    assert trace != churn(100, Churn(per_s=0.001, away_s=20.0), 10_000.0, seed=2)


def test_nobody_crashes_twice_or_comes_back_from_no_crash():
    up = set(range(10))
    for _, peer, what in churn(10, Churn(per_s=0.01, away_s=30.0), 5_000.0, seed=4):
        assert (peer in up) == (what == "crash")
        up.symmetric_difference_update([peer])


def test_a_swarm_lives_through_a_trace():
    async def main():
        swarm = await Swarm(12, options(records=6), SimNetwork(lambda a, b: WAN), seed=2).start()
        trace = churn(12, Churn(per_s=0.005, away_s=10.0), 300.0, seed=3)
        swarm.play(Script().follow(trace))
        await asyncio.sleep(320)
        assert len(trace) > 20
        gone = sum(1 if what == "crash" else -1 for _, _, what in trace)
        assert len(swarm.live) == 12 - gone >= 10
        await settled(swarm)
        assert min(sum(e.outcome == "ok" for e in peer.events) for peer in swarm.live) > 0
        assert all(peer.gossip.free for peer in swarm.live)

    clock.run(main())


def test_names_are_in_the_order_of_their_numbers():
    names = [peer_name(number) for number in range(2000)]
    assert names == sorted(set(names))


def test_a_bounded_reader_of_the_book_sees_everybody_in_time():
    async def main():
        swarm = await Swarm(30, options(records=5, renew_s=2.0)).start()
        await asyncio.sleep(5)
        few = len(swarm.peers[0].membership.alive(clock.now()))
        await asyncio.sleep(100)
        assert few < 29
        known = {p.me for p in swarm.peers if swarm.peers[0].membership.status(p.me)}
        assert len(known) == 29

    clock.run(main())


def test_the_example_of_the_documentation_runs():
    text = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(compile(example, "simulate.md", "exec"), names)
    assert names["outcomes"]["ok"] > 32
    assert 0 < names["disagreement"] < 10
