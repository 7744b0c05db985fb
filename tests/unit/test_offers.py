"""What finding a partner costs: offers sent per meeting held, in virtual time."""

import asyncio

import pytest

from swarmnet.exchange.driver import TOPIC
from swarmnet.sim import clock
from swarmnet.sim.network import Link, SimNetwork
from swarmnet.sim.peer import SimOptions
from swarmnet.sim.swarm import Swarm
from tests.unit.seeds import seeds
from tests.unit.swarms import choice

STEP_S = 0.2
LASTS_S = 50.0


async def held(n, h, seed):
    """Runs ``n`` peers. Returns offers per meeting and the share of possible meetings held."""
    network = SimNetwork(lambda a, b: Link(0.002, 50e6))
    matching, cadence = choice("matching", "random_pairs"), choice("cadence", "every_h", h=h)
    swarm = Swarm(n, SimOptions(matching, cadence, step_s=STEP_S), network, seed)
    await swarm.start()
    await asyncio.sleep(LASTS_S)
    assert network.bugs == []
    possible = sum(peer.steps for peer in swarm.peers) / h
    met = swarm.outcomes()["ok"]
    return network.traffic.opened[TOPIC] / (met / 2), met / possible


@pytest.mark.parametrize("seed", seeds(1, 2))
@pytest.mark.parametrize(
    ("n", "h", "most"), [(3, 1, 2.5), (4, 1, 3.0), (16, 1, 4.2), (4, 5, 2.0), (16, 5, 2.5)]
)
def test_few_offers_per_meeting_and_few_windows_without_one(n, h, most, seed):
    offers, met = clock.run(held(n, h, seed))
    assert 1.0 <= offers <= most
    assert met >= 0.85
