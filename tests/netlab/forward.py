"""The wires between the hosts of a lab: one process that holds all namespaces and moves packets.

Started by ``lab.py`` with the names of the hosts and their links as JSON. Every host is a network
namespace without a name, made here and kept by this process and those on the host. It ends with its
standard input, hence with its owner, and kills who is on its hosts, so that nothing is left. Each
host has one TUN device; a packet that it sends waits here for its turn on the line (rate) and then
for the way (delay).
TUN devices carry up to 64 KiB at once (segmentation offload), which costs a tenth of the work of
packets of 1500 bytes; the rate is that of the packets which a real wire would see.

Commands are JSON lines: ``{"shape": [from, to, link]}``, ``{"count": true}`` and ``{"end": true}``;
the start and each command but the last are answered by one line.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.netlab.nat import Nat

DEVICE = "t0"
NETWORK, HIDDEN = "45.77.0.", "10.77.0."
"""Host number i (from 0) is NETWORK followed by i + 2, in a range that libp2p takes for public. A
host behind a NAT has an address of HIDDEN, and the one of NETWORK belongs to its router."""
CONGESTION = "cubic"
"""Fixed, because what a line carries depends on it more than on anything else. Measured at 100 ms
round trip and 100 Mb/s: 128 KiB and their answer take 0.11 s with cubic, 0.41 s after a second of
silence; with bbr, where nothing but its own timers paces it, 0.1 to 3.7 s on a busy machine.
"""
CLONE_NEWNET = 0x40000000
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
CHECKSUM_TSO4_TSO6 = 1 | 2 | 4
VNET = struct.Struct("<BBHHHH")
"""virtio_net_hdr: flags, kind, length of all headers, payload bytes per packet, two more."""
PACKET_BYTES = 1 << 17
BURST = 64
GRACE_S = 0.02
"""Between opening a host's door and being in: two system calls."""


@dataclass(frozen=True)
class Link:
    """One direction between two hosts. ``rate`` in bytes per second, 0 is without bound."""

    delay_s: float = 0.0
    rate: float = 0.0
    jitter_s: float = 0.0
    """Up to this much more delay, at random; packets keep their order."""
    loss: float = 0.0
    """Probability that a packet is lost; 1 cuts the link."""
    queue_s: float = 0.25
    """A packet that would wait longer for its turn is dropped, as by a router."""


@dataclass
class Line:
    """What a link has carried, and until when it is busy."""

    link: Link
    free_at: float = 0.0
    last_due: float = 0.0
    bytes: int = 0
    dropped: int = 0

    def due(self, packet: bytes, now: float, luck: random.Random) -> float | None:
        """When the packet arrives, or None if it is lost."""
        link = self.link
        start = max(now, self.free_at)
        if start - now > link.queue_s or (link.loss and luck.random() < link.loss):
            self.dropped += 1
            return None
        size = wire_bytes(packet)
        self.bytes += size
        self.free_at = start + (size / link.rate if link.rate else 0.0)
        jitter = luck.random() * link.jitter_s
        self.last_due = max(self.last_due, self.free_at + link.delay_s + jitter)
        return self.last_due


@dataclass
class Wires:
    """All links and the packets under way, in order of arrival."""

    lines: dict[tuple[int, int], Line]
    routers: dict[int, Nat]
    luck: random.Random = field(default_factory=lambda: random.Random(0))
    under_way: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    sent: int = 0

    def send(self, source: int, packet: bytes) -> None:
        if source in self.routers:
            translated = self.routers[source].leave(packet)
            if translated is None:
                return
            packet = translated
        line = self.lines.get((source, destination(packet)))
        due = line.due(packet, time.monotonic(), self.luck) if line else None
        if due is not None:
            self.sent += 1
            heapq.heappush(self.under_way, (due, self.sent, destination(packet), packet))

    def arrived(self) -> list[tuple[int, bytes]]:
        now, arrived = time.monotonic(), []
        while self.under_way and self.under_way[0][0] <= now:
            _, _, target, packet = heapq.heappop(self.under_way)
            router = self.routers.get(target)
            admitted = router.enter(packet) if router else packet
            if admitted is not None:
                arrived.append((target, admitted))
        return arrived

    def idle_s(self) -> float | None:
        return max(0.0, self.under_way[0][0] - time.monotonic()) if self.under_way else None


def wire_bytes(packet: bytes) -> int:
    """Size of the packets that the offload has put together, headers included."""
    _, kind, headers, payload, _, _ = VNET.unpack_from(packet)
    size = len(packet) - VNET.size
    if not kind or not payload:
        return size
    return size + ((size - headers - 1) // payload) * headers


def destination(packet: bytes) -> int:
    """Number of the host that an IPv4 packet goes to; -1 for anything else."""
    ipv4 = packet[VNET.size] >> 4 == 4
    return packet[VNET.size + 19] - 2 if ipv4 else -1


def address_of(number: int, *, hidden: bool = False) -> str:
    return f"{HIDDEN if hidden else NETWORK}{number + 2}"


def make_host(number: int, *, hidden: bool) -> tuple[int, int]:
    """The file descriptors of a new namespace and of the device in it."""
    made: list[tuple[int, int]] = []
    refused: list[OSError] = []

    def inside() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the kernel refuses a network namespace")
            device = make_device(address_of(number, hidden=hidden))
            made.append((os.open("/proc/thread-self/ns/net", os.O_RDONLY), device))
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=inside)  # a namespace is a property of a thread
    thread.start()
    thread.join()
    if refused:
        raise refused[0]
    return made[0]


def make_router(number: int) -> Nat:
    inside, outside = address_of(number, hidden=True), address_of(number)
    return Nat(socket.inet_aton(inside), socket.inet_aton(outside))


def make_device(address: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), flags))
    fcntl.ioctl(tun, TUNSETOFFLOAD, CHECKSUM_TSO4_TSO6)
    for command in (
        "link set lo up",
        f"address add {address}/32 dev {DEVICE}",
        f"link set {DEVICE} mtu 1500 txqueuelen 10000 up",
        f"route add {NETWORK}0/24 dev {DEVICE} src {address} congctl {CONGESTION}",
    ):
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {command}: {done.stderr.strip()}")
    return tun


def answer(command: dict[str, Any], wires: Wires) -> object:
    if "shape" in command:
        source, target, link = command["shape"]
        wires.lines[source, target].link = Link(**link)
        return None
    return [[*ends, line.bytes, line.dropped] for ends, line in wires.lines.items()]


def say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def forward(tuns: list[int], wires: Wires) -> None:
    """Until the command to end, or the end of standard input."""
    number = {tun: index for index, tun in enumerate(tuns)}
    while True:
        ready, _, _ = select.select([*tuns, sys.stdin], [], [], wires.idle_s())
        for source in ready:
            if source is sys.stdin:
                command = json.loads(sys.stdin.readline() or '{"end": true}')
                if "end" in command:
                    return
                say(answer(command, wires))
            else:
                take(source, number[source], wires)
        for target, packet in wires.arrived():
            try:
                os.write(tuns[target], packet)
            except OSError:  # the host's queue is full or its device is down: lost, as on a wire
                continue


def take(tun: int, source: int, wires: Wires) -> None:
    for _ in range(BURST):
        try:
            packet = os.read(tun, PACKET_BYTES)
        except BlockingIOError:
            return
        wires.send(source, packet)


def clear(namespaces: list[int]) -> None:
    """Close the hosts and kill everybody there, those too who are on their way in."""
    ours = {os.fstat(namespace).st_ino for namespace in namespaces}
    for namespace in namespaces:
        os.close(namespace)
    time.sleep(GRACE_S)
    while found := [pid for pid in os.listdir("/proc") if pid.isdigit() and host_of(pid) in ours]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(GRACE_S)


def host_of(pid: str) -> int | None:
    """The namespace of a process; None of one that has ended, whether waited for or not."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def main() -> None:
    count, link, hidden = json.loads(sys.argv[1])
    try:
        hosts = [make_host(number, hidden=number in hidden) for number in range(count)]
    except OSError as error:
        say({"refused": str(error)})
        return
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    with contextlib.suppress(PermissionError):
        os.nice(-15)  # wires do not wait for a processor that the hosts keep busy
    namespaces = [namespace for namespace, _ in hosts]
    say({"namespaces": namespaces})
    routers = {number: make_router(number) for number in hidden}
    lines = {pair: Line(Link(**link)) for pair in pairs}
    forward([tun for _, tun in hosts], Wires(lines, routers))
    clear(namespaces)


if __name__ == "__main__":
    main()
