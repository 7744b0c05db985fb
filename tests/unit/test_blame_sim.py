"""Whole peers in virtual time, one of them or one link hurt: the report's figures find it."""

import asyncio
import dataclasses

import pytest

from peers.pace import links
from peers.story import tell
from swarmnet.events import PeerStarted
from swarmnet.exchange import session
from swarmnet.sim import clock
from swarmnet.sim.network import Link
from tests.unit.swarms import NAMES, Swarm

ANN, BOB = NAMES[:2]
QUICK = Link(latency_s=0.02, bandwidth=300.0)
SLOW = Link(latency_s=0.02, bandwidth=30.0)
LATE = Link(latency_s=0.2, bandwidth=300.0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """A payload of 64 bytes in eight PART frames."""
    monkeypatch.setattr(session, "PART_BYTES", 8)


def verdicts(link, each, n=6, seed=0, crash=None):
    """What stands out after ``each`` meetings of every peer, or of every peer it can meet."""

    async def main():
        swarm = Swarm(n, h=2, seed=seed)
        swarm.network._link = link
        await swarm.start()
        await asyncio.sleep(4.0)
        if crash is not None:
            swarm.network.crash(crash)
        await asyncio.sleep(40.0 * each)
        lines = []
        for peer in swarm.peers:
            started = PeerStarted("worker", "sim", "f", peer.me)
            lines.append({"time": 0.0, "peer": peer.me, "event": started.name} | vars(started))
            met = [event for event in peer.events if event.partner]
            for number, event in enumerate(met[:each]):
                fields = dataclasses.asdict(event)
                lines.append({"time": 1.0 + number, "peer": peer.me, "event": event.name} | fields)
        return [
            (verdict["kind"], verdict["peer"], verdict["other"])
            for verdict in links(tell(lines))["verdicts"]
        ]

    return clock.run(main())


@pytest.mark.parametrize("seed", range(3))
def test_within_five_meetings_of_each_a_slow_sender_is_known(seed):
    found = verdicts(lambda a, b: SLOW if a == ANN else QUICK, each=5, seed=seed)
    assert found == [("sender", ANN, "")]


@pytest.mark.parametrize("seed", range(3))
def test_within_five_meetings_of_each_a_slow_receiver_is_known(seed):
    found = verdicts(lambda a, b: SLOW if b == ANN else QUICK, each=5, seed=seed)
    assert found == [("receiver", ANN, "")]


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_link_is_known_once_it_was_used_thrice(seed):
    found = verdicts(lambda a, b: SLOW if (a, b) == (ANN, BOB) else QUICK, 20, 4, seed)
    assert found == [("link", ANN, BOB)]


def test_a_far_peer_is_not_a_slow_one():
    assert verdicts(lambda a, b: LATE if ANN in (a, b) else QUICK, each=5) == []


def test_a_crashed_peer_does_not_answer_and_nobody_is_slow():
    assert verdicts(lambda a, b: QUICK, each=5, crash=ANN) in ([], [("silent", ANN, "")])
    found = verdicts(lambda a, b: SLOW if a == BOB else QUICK, each=8, crash=ANN)
    assert ("sender", BOB, "") in found
    assert {kind for kind, peer, _ in found if peer == ANN} <= {"silent"}
