"""Peers behind NATs find out that they are, and meet through a relay, with nothing configured."""

import json
import subprocess
import sys

import pytest

from swarmnet.errors import LinkError
from swarmnet.events import PathSeen
from swarmnet.net.absences import Pauses
from tests.netlab.lab import Lab, LabError, Link
from tests.netlab.nodes import Host, wait_until

MIB = 1024 * 1024


@pytest.fixture
def lab():
    """A bootstrap ``r`` in the open, ``a`` and ``b`` each behind a NAT, ``c`` in the open."""
    try:
        lab = Lab("rabc", Link(delay_s=0.005), hidden="ab")
    except LabError as error:
        pytest.skip(str(error))
    with lab:
        yield lab


@pytest.fixture
def hosts(lab, tmp_path):
    made = [Host(lab, name, tmp_path) for name in "rabc"]
    yield made
    for host in made:
        host.close()


def test_a_nat_lets_answers_in_and_nothing_else(tmp_path):
    knock = """
import json, socket, sys
line = socket.socket()
line.settimeout(2)
try:
    line.connect((sys.argv[1], 5000))
    print(json.dumps(line.getpeername()[0]))
except OSError:
    print(json.dumps(None))
"""
    listen = """
import socket
server = socket.create_server(("0.0.0.0", 5000))
print("up", flush=True)
while True:
    line, seen = server.accept()
    print(seen[0], flush=True)
"""
    try:
        lab = Lab("ab", hidden="a")
    except LabError as error:
        pytest.skip(str(error))
    with lab:
        servers = {}
        for host in "ab":
            servers[host] = lab.popen(host, [sys.executable, "-c", listen], stdout=subprocess.PIPE)
            servers[host].stdout.readline()

        def call(host, target):
            argv = [sys.executable, "-c", knock, lab.address(target)]
            return json.loads(lab.popen(host, argv, stdout=subprocess.PIPE).communicate()[0])

        assert call("a", "b") == lab.address("b")
        assert servers["b"].stdout.readline().strip() == lab.address("a")
        assert call("b", "a") is None


def test_two_hidden_peers_and_one_bootstrap_work_with_nothing_configured(hosts):
    r, a, b, c = hosts
    r.start()
    for host in (a, b, c):
        host.start(r.node.addresses)
    assert [host.node.reach for host in hosts] == ["public", "private", "private", "public"]
    for host in hosts:
        host.introduce(*hosts)
    assert c.echo(r) == 10
    wait_until(lambda: reaches(a, b), 10.0)
    assert a.echo(b, 5 * MIB) == 5 * MIB
    assert b.echo(a, 5 * MIB) == 5 * MIB
    wait_until(lambda: reaches(c, a), 10.0)
    relayed = PathSeen(b.me, "relayed", r.me)
    direct = PathSeen(b.me, "direct")
    wait_until(lambda: relayed in a.events or direct in a.events, 10.0)
    a.publish(1)
    b.publish(2)
    wait_until(lambda: set(a.sees()) == set(b.sees()) == {a.me, b.me}, 10.0)


def test_what_was_found_out_is_remembered(hosts):
    r, a, *_ = hosts
    r.start()
    a.start(r.node.addresses)
    a.thread.run(a.node.close())
    a.start(r.node.addresses)
    assert a.node.reach == "private"
    assert len(a.node.relays) == 1


def test_another_relay_is_booked_when_the_first_is_gone(hosts, monkeypatch):
    monkeypatch.setattr("swarmnet.net.reach.RELAYS_AGAIN_S", 1.0)
    r, a, b, c = hosts
    r.start()
    for host in (a, b, c):
        host.start(r.node.addresses, reach="public" if host is c else "auto")
    for host in hosts:
        host.introduce(*hosts)
    assert a.echo(c) == b.echo(c) == 10
    r.thread.run(r.node.close())
    for hidden in (a, b):
        wait_until(lambda hidden=hidden: c.me in "".join(hidden.node.relays), 30.0)
    wait_until(lambda: introduced_again(a, b), 30.0)


def test_a_relayed_path_becomes_a_direct_one_when_there_is_one(lab, hosts, monkeypatch):
    monkeypatch.setattr("swarmnet.net.neighbours.BENT", Pauses(2.0, 2.0, 2.0, news=False))
    r, a, _, c = hosts
    lab.cut("a", "c")
    r.start()
    for host in (a, c):
        host.start(r.node.addresses, reach="public" if host is c else "auto")
    for host in (a, c):
        host.introduce(r, a, c)
    assert c.echo(a) == 10
    wait_until(lambda: c.node.ways.get(a.me) == a.node.ways.get(c.me) == "relayed", 10.0)
    lab.mend("a", "c")
    wait_until(lambda: c.node.ways.get(a.me) == a.node.ways.get(c.me) == "direct", 40.0)
    assert c.echo(a) == 10


def introduced_again(a, b):
    a.introduce(b)
    return reaches(a, b)


def reaches(one, other):
    try:
        return one.echo(other, deadline_s=3.0) == 10
    except LinkError:
        return False
