"""Paths that end and come back: a site cut off, a way that dies in one direction, a long line.

Virtual time cannot show this: how long libp2p and the DHT take to believe that a peer is gone, and
who looks for whom afterwards, is theirs.
"""

import threading
import time

import pytest

from swarmnet.errors import LinkError
from tests.netlab.lab import Lab, LabError, Link
from tests.netlab.nodes import Host, wait_until

MIB = 1024 * 1024
CUT_S = 60.0
"""Longer than the 35 s after which libp2p gives a silent connection up."""
HEALED_S = 15.0
RENEW_S = 1.0


@pytest.fixture
def lay(tmp_path):
    """Makes hosts with nodes on them, the first being everybody's bootstrap."""
    opened, made = [], []

    def hosts(names, link=Link()):  # noqa: B008 - frozen
        try:
            lab = Lab(names, link)
        except LabError as error:
            pytest.skip(str(error))
        opened.append(lab)
        made.extend(Host(lab, name, tmp_path) for name in names)
        made[0].start()
        for host in made[1:]:
            host.start(made[0].node.addresses)
        for host in made:
            host.introduce(*made)
        return lab, made

    yield hosts
    for host in made:
        host.close()
    for lab in opened:
        lab.close()


class Renewing:
    """Writes every host's record as its phone book would, with a number that grows."""

    def __init__(self, hosts):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._write, args=[host]) for host in hosts]
        for thread in self.threads:
            thread.start()

    def _write(self, host):
        n = 0
        while not self.stop.wait(RENEW_S):
            n += 1
            try:
                host.publish(n)
            except LinkError:
                continue

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def works(one, other):
    try:
        return one.echo(other, deadline_s=3.0) == 10
    except LinkError:
        return False


def test_two_halves_that_were_cut_apart_for_a_minute_find_each_other(lay):
    lab, hosts = lay("abcd", Link(delay_s=0.01))
    a, b, c, d = hosts
    with Renewing(hosts):
        wait_until(lambda: all(len(host.sees()) == 4 for host in hosts), 20.0)
        lab.cut("ab", "cd")
        time.sleep(CUT_S)
        assert works(a, b)
        assert works(c, d)
        assert not works(a, c)
        for host in hosts:
            host.healed = 0
        last = {host: host.sees() for host in (a, c)}
        lab.mend("ab", "cd")
        for host, others in ((a, (c, d)), (c, (a, b))):
            before = last[host]
            wait_until(lambda h=host, o=others, s=before: newer(h.sees(), s, o), HEALED_S)
        wait_until(lambda: all(host.healed for host in hosts), HEALED_S)
        for one in (a, b):
            for other in (c, d):
                wait_until(lambda one=one, other=other: works(one, other), HEALED_S)


def newer(seen, before, others):
    return all(seen.get(other.me, 0) > before.get(other.me, 0) for other in others)


def test_a_way_that_dies_in_one_direction_costs_this_link_and_nothing_else(lay):
    lab, hosts = lay("abc", Link(delay_s=0.01))
    a, b, c = hosts
    with Renewing(hosts):
        wait_until(lambda: all(len(host.sees()) == 3 for host in hosts), 20.0)
        assert works(b, c)
        lab.cut("b", "c", back=False)
        assert not works(b, c)
        assert not works(c, b)
        for one, other in ((a, b), (b, a), (a, c), (c, a)):
            assert works(one, other)
        before = b.sees()
        wait_until(lambda: newer(b.sees(), before, [c]), HEALED_S)
        lab.mend("b", "c")
        wait_until(lambda: works(b, c) and works(c, b), 2 * HEALED_S)


def test_a_long_thin_line_carries_what_it_can(lay):
    rate = 10e6 / 8
    _, (a, b) = lay("ab", Link(delay_s=0.1, rate=rate))
    began = time.monotonic()
    assert b.echo(a, MIB, deadline_s=20.0) == MIB
    assert time.monotonic() - began > MIB / rate
    a.publish(1)
    wait_until(lambda: b.sees() == {a.me: 1}, 10.0)
