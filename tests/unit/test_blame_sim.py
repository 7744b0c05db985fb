"""Whole peers in virtual time, one of them or one link hurt: the report's figures find it."""

import asyncio
import dataclasses
import random

import pytest

from peers.pace import links
from peers.story import tell
from swarmnet.events import PeerStarted
from swarmnet.sim import clock, vector
from swarmnet.sim.network import SimStream
from swarmnet.wire import Kind
from tests.unit.swarms import NAMES, Swarm

ANN, BOB = NAMES[:2]
PART_S = 0.1


@pytest.fixture
def verdicts(monkeypatch):
    """``verdicts(times, each, ...)``: what stands out after ``each`` meetings of every peer.

    A payload goes in eight PARTs, of which each takes ``times(source, destination)`` times 0.1 s.
    """
    monkeypatch.setattr(vector, "PART_VALUES", 1)
    send = SimStream.send

    async def heavy(stream, frame, deadline_s):
        if frame.kind is Kind.PART:
            await asyncio.sleep(PART_S * heavy.times(stream._me, stream.peer))
        await send(stream, frame, deadline_s)

    monkeypatch.setattr(SimStream, "send", heavy)

    def after(times, each, n=6, seed=0, crash=None):
        heavy.times = times
        return [
            (verdict["kind"], verdict["peer"], verdict["other"])
            for verdict in clock.run(storied(each, n, seed, crash))["verdicts"]
        ]

    return after


async def storied(each, n, seed, crash):
    """The report's figures from the events that real peers leave."""
    swarm = await Swarm(n, h=4, seed=seed).start()
    await asyncio.sleep(6.0)
    if crash is not None:
        swarm.network.crash(crash)
    await asyncio.sleep(30.0 * each)
    lines = []
    for peer in swarm.peers:
        started = PeerStarted("worker", "sim", "f", peer.me)
        lines.append({"time": 0.0, "peer": peer.me, "event": started.name} | vars(started))
        met = [event for event in peer.events if event.partner]
        for number, event in enumerate(met[:each]):
            fields = dataclasses.asdict(event)
            lines.append({"time": 1.0 + number, "peer": peer.me, "event": event.name} | fields)
    return links(tell(lines))


def load(slow=lambda a, b: False, times=10.0):
    """Up to three times load on everybody, and much more where ``slow`` says so."""
    dice = random.Random(1)
    return lambda a, b: dice.uniform(1.0, 3.0) * (times if slow(a, b) else 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_load_alone_is_nobodys_fault(verdicts, seed):
    assert verdicts(load(), each=10, seed=seed) == []


@pytest.mark.parametrize("seed", range(3))
def test_within_six_meetings_of_each_a_slow_sender_is_known(verdicts, seed):
    found = verdicts(load(lambda a, b: a == ANN), each=6, seed=seed)
    assert found == [("sender", ANN, "")]


@pytest.mark.parametrize("seed", range(3))
def test_within_five_meetings_of_each_a_slow_receiver_is_known(verdicts, seed):
    found = verdicts(load(lambda a, b: b == ANN), each=5, seed=seed)
    assert found == [("receiver", ANN, "")]


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_link_is_known_once_it_was_used_thrice(verdicts, seed):
    found = verdicts(load(lambda a, b: (a, b) == (ANN, BOB)), each=40, n=4, seed=seed)
    assert found == [("link", ANN, BOB)]


def test_a_crashed_peer_does_not_answer_and_only_the_slow_one_is_slow(verdicts):
    found = verdicts(load(lambda a, b: a == BOB), each=6, crash=ANN)
    assert found == [("silent", ANN, ""), ("sender", BOB, "")]
