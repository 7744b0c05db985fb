"""Any interleaving of cuts, crashes, freezes, restarts and partitions: five invariants hold.

1. Nobody applies a meeting that its partner knows to have failed, or applies it twice.
2. The mean law, meeting by meeting, over all survivors.
3. No peer is stuck: it steps, it is free, its snapshot is back, and it meets again.
4. Queues are bounded at every moment.
5. A pending correction is resolved or counted.
"""

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from swarmnet.sim import clock
from swarmnet.sim.network import Link
from tests.unit.storm import CUTS, KINDS, Fault, weather
from tests.unit.swarms import SLOW

CALM = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink a storm takes longer than to read it
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def faults(kinds, longest_s):
    return st.builds(
        Fault,
        after_s=st.integers(0, 10).map(lambda tenths: tenths * longest_s / 10),
        kind=st.sampled_from(kinds),
        who=st.integers(0, 5),
        other=st.integers(0, 4),
        size=st.integers(0, 700),
    )


LINKS = st.lists(st.sampled_from([Link(), SLOW]), min_size=1, max_size=3)


@settings(CALM, max_examples=90)
@given(
    n=st.integers(2, 6),
    h=st.integers(1, 3),
    seed=st.integers(0, 99),
    links=LINKS,
    script=st.lists(faults(KINDS, 6.0), min_size=4, max_size=25),
)
def test_no_storm_breaks_an_invariant(n, h, seed, links, script):
    clock.run(weather(n, script, links, h=h, seed=seed))


@settings(CALM, max_examples=10)
@given(
    n=st.integers(3, 6),
    seed=st.integers(0, 99),
    links=LINKS,
    script=st.lists(faults(CUTS, 2.0), min_size=60, max_size=120),
)
def test_a_hail_of_cuts_breaks_none(n, seed, links, script):
    clock.run(weather(n, script, links, h=2, seed=seed))


def test_a_line_that_dies_at_any_moment_breaks_none():
    """The acceptor holds its payload long before the offerer: it must not apply on that alone."""
    for tenth in range(10, 50):
        fault = Fault(tenth / 10, "sever", 0, 0, 0)
        clock.run(weather(2, [fault], [Link(), SLOW]))
