"""A fault at every frame of a group meeting: all of a decision's members apply it, or none."""

import asyncio
import random

import pytest

from swarmnet.sim import clock
from swarmnet.sim.network import Link
from tests.unit.groups import KINDS, Company, Fault, check_mean, strike


def struck(monkeypatch, n, kind, at, values=10):
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


def sweep(monkeypatch, n, kind, stride=1, **options):
    """Every ``stride``-th frame until the meeting has no more; how the meetings ended."""
    ends, frames, at = [], set(), 0
    while True:
        company, fault = struck(monkeypatch, n, kind, at, **options)
        if fault.seen is None:
            break
        frames.add(fault.seen)
        ends.append((fault.seen.name, sum(bool(peer.applied()) for peer in company.alive)))
        at += stride
    assert at > 20
    return ends


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 4])
def test_a_fault_at_every_frame_of_a_direct_meeting(monkeypatch, n, kind):
    ends = sweep(monkeypatch, n, kind)
    met = sum(applied >= 2 for _, applied in ends)
    print(n, kind, len(ends), met)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [5])
def test_a_fault_at_every_frame_of_a_butterfly(monkeypatch, n, kind):
    ends = sweep(monkeypatch, n, kind, values=20)
    print(n, kind, len(ends), sum(applied >= 2 for _, applied in ends))


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
    return sum(bool(peer.applied()) for peer in company.alive), len(company.alive)


@pytest.mark.parametrize("batch", range(10))
def test_storms_of_faults(monkeypatch, batch):
    results = [storm(monkeypatch, seed) for seed in range(60 * batch, 60 * batch + 60)]
    print(sum(applied > 1 for applied, _ in results), "of", len(results))
