"""A fault at every frame of a group meeting: all of a decision's members apply it, or none."""

import asyncio
import random

import pytest

from swarmnet.sim import clock
from swarmnet.sim.network import Link
from tests.unit.groups import KINDS, Company, Fault, check_mean, strike

STORMS = 120


def struck(monkeypatch, n, kind, at, values):
    """One meeting of ``n`` with one fault; the company and the fault, after all has settled."""
    fault = Fault(at, kind)

    async def main():
        company = await Company(n, values, seed=at).open()
        with monkeypatch.context() as patch:
            strike(patch, company, fault)
            company.peers[0].lead(company.names[1:])
            await company.settle()
        await company.settle()
        company.judge()
        check_mean(company)
        return company

    return clock.run(main()), fault


def sweep(monkeypatch, n, kind, values):
    """A fault at each frame until the meeting has no more; how many applied each time."""
    applied = []
    while True:
        company, fault = struck(monkeypatch, n, kind, len(applied), values)
        if fault.seen is None:
            return applied
        applied.append(sum(bool(peer.applied()) for peer in company.alive))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n", "values", "frames"),
    [(3, 10, 48), (4, 7, 78), pytest.param(5, 14, 124, marks=pytest.mark.long)],
)
def test_a_fault_at_every_frame(monkeypatch, n, values, frames, kind):
    """Where the leader stays, the others meet without whoever is lost, more often than not."""
    applied = sweep(monkeypatch, n, kind, values)
    assert len(applied) == frames
    met = sum(peers >= 2 for peers in applied)
    if kind.startswith("leader"):
        assert met >= 1
    else:
        assert met > frames / 2
    if kind == "cut":
        assert met == frames


def storm(monkeypatch, seed):
    """Several faults of any kind in one meeting on uneven links, while members already ask."""
    dice = random.Random(seed)
    n = dice.choice([3, 4, 5, 6, 8])
    frames = 5 * n * n + 10
    faults = [Fault(dice.randrange(frames), dice.choice(KINDS)) for _ in range(dice.randint(1, 4))]
    links = {}

    def link(a, b):
        return links.setdefault((a, b), Link(dice.uniform(0.001, 0.4), dice.uniform(2e2, 1e5)))

    async def main():
        company = await Company(n, dice.choice([7, 20, 40]), seed, link=link).open()
        asking = []
        for peer in company.peers:
            work = peer.keep_asking(lambda: {p.me for p in company.peers if p.crashed})
            asking.append(asyncio.create_task(work))
            company.network.own(peer.me, asking[-1])
        with monkeypatch.context() as patch:
            strike(patch, company, *faults)
            company.peers[0].lead(company.names[1:])
            await company.settle()
        for task in asking:
            task.cancel()
        await company.settle()
        company.judge()
        check_mean(company)
        return company

    company = clock.run(main())
    return sum(bool(peer.applied()) for peer in company.alive)


def test_storms_of_faults(monkeypatch):
    applied = [storm(monkeypatch, seed) for seed in range(STORMS)]
    assert sum(peers >= 2 for peers in applied) > STORMS / 4
