"""Groups over the simulated network: exact means, and what a lost member costs."""

import pytest

from swarmnet.exchange.pair import End
from swarmnet.sim import clock
from tests.unit.groups import NAMES, Company, check_mean


def run(main):
    return clock.run(main)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("values", [1, 5, 23, 100])
def test_everybody_holds_the_exact_mean(n, values):
    async def main():
        company = await Company(n, values, seed=n).open()
        assert await company.meet() is End.APPLIED
        await company.settle()
        company.judge()
        assert company.ends() == {End.APPLIED: n}
        check_mean(company)
        assert {len(p.minutes[-1].works) for p in company.peers} == {n}

    run(main())
