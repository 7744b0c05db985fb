"""A fault at every frame of a group meeting: all of a decision's members apply it, or none."""

import pytest

from swarmnet.sim import clock
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
