"""The lab's links do what they are told, and nothing of a lab outlives it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netlab.lab import Lab, LabError, Link

DEADLINE_S = 30.0

ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 5000))
print("up", flush=True)
while True:
    peer, _ = server.accept()
    while data := peer.recv(1 << 20):
        if len(data) == 1:
            peer.sendall(data)
    peer.close()
"""
CALLER = """
import json, socket, sys, time
address, nbytes = sys.argv[1], int(sys.argv[2])
line = socket.create_connection((address, 5000))
def trip():
    began = time.monotonic()
    line.sendall(b"x")
    line.recv(1)
    return time.monotonic() - began
trips = [trip() for _ in range(5)]
began = time.monotonic()
if nbytes:
    line.sendall(bytes(nbytes))
    line.shutdown(socket.SHUT_WR)
    line.recv(1)
congestion = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
print(json.dumps([min(trips), time.monotonic() - began, congestion.rstrip(bytes(1)).decode()]))
"""
CRASHING = """
import subprocess, sys, time
from tests.netlab.lab import Lab
lab = Lab(["a"])
sleeper = lab.popen("a", ["sleep", "1000"])
forwarder = int(lab.namespace("a").split("/")[2])
print(forwarder, sleeper.pid, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def lab():
    try:
        opened = Lab(["a", "b"])
    except LabError as error:
        pytest.skip(str(error))
    with opened:
        yield opened


def call(lab, nbytes=0):
    """(seconds of the shortest round trip, seconds of nbytes, congestion control), a to b."""
    server = lab.popen("b", [sys.executable, "-c", ECHO, lab.address("b")], stdout=subprocess.PIPE)
    server.stdout.readline()
    argv = [sys.executable, "-c", CALLER, lab.address("b"), str(nbytes)]
    caller = lab.popen("a", argv, stdout=subprocess.PIPE)
    return json.loads(caller.communicate(timeout=DEADLINE_S)[0])


def alive(pid):
    """A process that has ended but was not waited for by its parent is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_round_trip_takes_twice_the_delay(lab):
    for ends in (("a", "b"), ("b", "a")):
        lab.shape(*ends, Link(delay_s=0.05))
    trip_s, _, congestion = call(lab)
    assert 0.1 <= trip_s < 0.2
    assert congestion == "cubic"


def test_a_line_carries_its_rate_and_no_more(lab):
    nbytes, rate = 4_000_000, 2e6
    lab.shape("a", "b", Link(rate=rate))
    _, took_s, _ = call(lab, nbytes)
    carried = lab.carried()
    assert nbytes / rate <= took_s < 3 * nbytes / rate
    assert nbytes <= carried["a", "b"].bytes < 1.2 * nbytes
    assert carried["b", "a"].bytes < 0.1 * nbytes


def test_a_cut_link_carries_nothing(lab):
    lab.shape("a", "b", Link(loss=1.0))
    caller = lab.popen("a", [sys.executable, "-c", CALLER, lab.address("b"), "0"])
    wait_until(lambda: lab.carried()["a", "b"].dropped)
    assert lab.carried()["a", "b"].bytes == 0
    assert caller.poll() is None


def test_its_processes_end_with_it(lab):
    sleeper = lab.popen("a", ["sleep", "1000"])
    namespace = Path(lab.namespace("a"))
    assert namespace.exists()
    lab.close()
    assert sleeper.poll() is not None
    assert not namespace.exists()


def test_nothing_is_left_of_a_lab_whose_owner_was_killed(lab):
    argv = [sys.executable, "-c", CRASHING]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    owner = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env)
    left = [int(pid) for pid in owner.stdout.readline().split()]
    assert all(alive(pid) for pid in left)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    wait_until(lambda: not any(alive(pid) for pid in left))


def test_a_refusal_says_why(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match="iproute2"):
        Lab(["a"])
