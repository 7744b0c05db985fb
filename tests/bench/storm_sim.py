"""The published storm with all 32 replicas in virtual time, for 30 virtual minutes.

The same plan and the same ward as on real processes; what a process needs to come back is an
argument, measured there. A killed peer comes back with the weights that it had. ``mean law``: how
far what all meetings did to the swarm is from nothing, as a share of the disagreement.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from peers.churn import commits
from peers.storm.plan import Span, StormConfig, plan
from peers.storm.ward import Act, Ward
from swarmnet.config import Choice
from swarmnet.sim import clock
from swarmnet.sim.network import Link, SimNetwork
from swarmnet.sim.peer import SimOptions, SimPeer
from swarmnet.sim.swarm import Swarm

PEERS, H, STEP_S, RENEW_S = 32, 20, 0.5, 2.0
LASTS_S, QUIET_S = 1800.0, 120.0
PAYLOAD_BYTES = 4 * 3_300_000
LATENCY_S, BANDWIDTH, SIGMA = 0.002, 100e6, 1.0
PERIOD_S = 1.5 * H * STEP_S
TICK_S, SETTLE_S = 0.1, 5.0


def measure(storm: StormConfig, seed: int, back_s: float) -> dict[str, Any]:
    """``back_s``: from a kill to the first step of who came back."""
    began = time.perf_counter()
    calm = clock.run(weathered(None, seed))
    assert storm.kill is not None
    kill = storm.kill.model_copy(update={"for_s": Span(least=back_s, most=back_s)})
    hurt = clock.run(weathered(storm.model_copy(update={"kill": kill}), seed))
    return {
        "peers": PEERS,
        "back_s": back_s,
        "calm": calm,
        "storm": hurt,
        "steps_ratio": hurt["steps"] / calm["steps"],
        "wall_s": round(time.perf_counter() - began, 1),
    }


async def weathered(storm: StormConfig | None, seed: int) -> dict[str, Any]:
    network = SimNetwork(lambda a, b: Link(LATENCY_S, BANDWIDTH, SIGMA), seed=seed)
    options = SimOptions(
        Choice(name="random_pairs").build("matching"),
        Choice(name="every_h", h=H).build("cadence"),
        renew_s=RENEW_S,
        step_s=STEP_S,
        nbytes=PAYLOAD_BYTES,
    )
    swarm = await Swarm(PEERS, options, network, seed).start()
    weather = Weather(swarm, storm, seed)
    rounds = Rounds(swarm, weather)
    while clock.now() < LASTS_S:
        await asyncio.sleep(TICK_S)
        await weather.tend(clock.now())
        rounds.look(clock.now())
    took = sum(peer.steps for peer in swarm.peers)
    await settle(swarm)
    assert network.bugs == []
    return figures(swarm, rounds, weather) | {"steps": took}


async def settle(swarm: Swarm) -> None:
    """No new steps and meetings; those under way end, so that both sides have applied them."""
    for peer in swarm.live:
        peer.gossip.paused = True
        peer.state = "paused"
    await asyncio.sleep(SETTLE_S)


class Weather:
    """Does to simulated peers what ``peers.storm.hands`` does to processes."""

    def __init__(self, swarm: Swarm, storm: StormConfig | None, seed: int) -> None:
        self.faults: dict[str, int] = {}
        self.hurt: set[int] = set()
        """Those to whom something is done now."""
        self._swarm = swarm
        self._ward = Ward(storm, plan(storm, seed)) if storm is not None else None
        for number in range(PEERS if self._ward else 0):
            self._ward.reserve(f"worker-{number}")
            self._ward.enter(f"worker-{number}")
            self._ward.trains(f"worker-{number}")

    async def tend(self, now: float) -> None:
        if self._ward is None:
            return
        acts = self._ward.due(now) if now < LASTS_S - QUIET_S else self._ward.heal()
        for act in acts:
            numbers = [int(name.removeprefix("worker-")) for name in act.subjects]
            if not act.over:
                self.faults[act.fault.kind] = self.faults.get(act.fault.kind, 0) + 1
            await self._do(act, numbers)
            if act.enters:
                self._ward.enter(act.enters)
                self._ward.trains(act.enters)
            (self.hurt.difference_update if act.over else self.hurt.update)(numbers)

    async def _do(self, act: Act, numbers: list[int]) -> None:
        swarm = self._swarm
        if act.fault.kind == "kill":
            await self._kill(numbers[0], act)
        elif act.fault.kind == "freeze" and not act.over:
            swarm.freeze(numbers[0], act.fault.seconds)
        elif act.fault.kind == "partition":
            near = [number for number in range(PEERS) if number not in numbers]
            walls = [(one, other) for one in numbers for other in near]
            (swarm.heal if act.over else swarm.partition)(walls)

    async def _kill(self, number: int, act: Act) -> None:
        if not act.over:
            self._swarm.crash(number)
            return
        before = self._swarm.peers[number]
        after = await self._swarm.restart(number)
        after.subject.live[:] = before.subject.live
        after.started, after.added = before.started, before.added.copy()
        after.steps = before.steps
        after.gossip.remember(before.gossip.settling.in_weights)


class Rounds:
    """Who of those that were up through a period has completed an exchange in it."""

    def __init__(self, swarm: Swarm, weather: Weather) -> None:
        self.alive: list[bool] = []
        self.able: list[bool] = []
        self._swarm, self._weather = swarm, weather
        self._until = 0.0
        self._before: dict[SimPeer, int] = {}
        self._hurt: set[int] = set()

    def look(self, now: float) -> None:
        self._hurt |= self._weather.hurt
        if now < self._until:
            return
        hurt = {self._swarm.peers[number] for number in self._hurt}
        for peer in self._swarm.live:
            if peer in self._before:
                took_part = exchanged(peer) > self._before[peer]
                self.alive.append(took_part)
                self.able += [] if peer in hurt else [took_part]
        self._until = now + PERIOD_S
        self._before = {peer: exchanged(peer) for peer in self._swarm.live}
        self._hurt = set(self._weather.hurt)


def exchanged(peer: SimPeer) -> int:
    return sum(event.outcome in ("ok", "late") for event in peer.events)


def figures(swarm: Swarm, rounds: Rounds, weather: Weather) -> dict[str, Any]:
    outcomes = swarm.outcomes()
    sides = [asdict(e) for peer in (*swarm.peers, *swarm.former) for e in peer.events]
    agreed = commits(sides)
    moved = [peer.subject.live - peer.started - peer.added for peer in swarm.live]
    apart = swarm.disagreement()
    return {
        "faults": weather.faults,
        "commits": agreed["begun"],
        "calls": agreed["called"],
        "alive": sum(rounds.alive) / len(rounds.alive),
        "able": sum(rounds.able) / len(rounds.able),
        "exchanges": (outcomes["ok"] + outcomes["late"]) // 2,
        "solo": outcomes["solo"],
        "disagreement": apart,
        "mean_law": float(np.abs(np.mean(moved, axis=0)).max()) / apart,
    }


def render(result: dict[str, Any]) -> list[str]:
    """The lines that people read."""
    storm, calm = result["storm"], result["calm"]
    lines = [
        f"\nvirtual time: {result['peers']} replicas of 3.3 M parameters, H {H}, "
        f"{LASTS_S / 60:.0f} minutes, back after {result['back_s']:.1f} s; {storm['faults']}",
        f"{'':14}{'commit':>9}{'calls':>9}{'able':>9}{'alive':>9}"
        f"{'solo':>7}{'disagr.':>9}{'mean law':>10}",
    ]
    for name, row in (("storm", storm), ("without", calm)):
        lines.append(
            f"{name:14}{row['commits']:9.2%}{row['calls']:9.2%}{row['able']:9.2%}"
            f"{row['alive']:9.2%}{row['solo']:7}{row['disagreement']:9.2f}{row['mean_law']:10.1e}"
        )
    return [*lines, f"steps {result['steps_ratio']:.2%} of those without; {result['wall_s']:.0f} s"]
