"""Hosts on one machine: network namespaces, joined by links with a delay and a rate.

    with Lab(["a", "b"], Link(delay_s=0.05, rate=12.5e6)) as lab:
        server = lab.popen("b", ["python", "-m", "http.server", "--bind", lab.address("b")])

Needs root and Linux with TUN; ``Lab`` raises LabError with the reason where it cannot be had. A
round trip takes twice the delay; a rate of 12.5e6 bytes per second carries 95 Mb/s of TCP payload.
Every pair of hosts has a line of its own in each direction. Hosts named in ``hidden`` are each
behind a NAT of their own (``nat.py``).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import IO, Any, Self

from tests.netlab.forward import CLONE_NEWNET, DEVICE, Link, address_of

__all__ = ["DEVICE", "Carried", "Lab", "LabError", "Link", "enter"]

FORWARDER = "tests.netlab.forward"
ROOT = Path(__file__).parents[2]


class LabError(Exception):
    """The machine refuses such a lab, or the process that carries its packets is gone."""


@dataclass(frozen=True)
class Carried:
    """What one direction between two hosts has carried so far."""

    bytes: int
    """Of IP packets, headers included."""
    dropped: int
    """Packets, or bundles of them."""


class Lab:
    """Named hosts and their links. Its processes, and the hosts with them, end with the block.

    They end with this process too, however it ends. The namespaces have no names: the kernel takes
    them back with their last process.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        link: Link = Link(),  # noqa: B008 - frozen
        hidden: Sequence[str] = (),
    ) -> None:
        self.hosts = tuple(hosts)
        self._link = link
        self._processes: list[subprocess.Popen[Any]] = []
        for tool in ("ip", "nsenter"):
            if not shutil.which(tool):
                raise LabError(f"a lab needs {tool!r} (packages iproute2 and util-linux)")
        if sys.platform != "linux" or os.geteuid() != 0 or not Path("/dev/net/tun").exists():
            raise LabError("a lab needs Linux, root and /dev/net/tun")
        begin = [len(self.hosts), asdict(link), [self._number(host) for host in hidden]]
        argv = [sys.executable, "-m", FORWARDER, json.dumps(begin)]
        self._forwarder = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        try:
            begun = self._answer()
            if "refused" in begun:
                raise LabError(begun["refused"])
        except LabError:
            self.close()
            raise
        pid = self._forwarder.pid
        self._namespaces = [f"/proc/{pid}/fd/{number}" for number in begun["namespaces"]]

    def address(self, host: str) -> str:
        """Where others reach it; of a hidden host, what they see of its router."""
        return address_of(self._number(host))

    def namespace(self, host: str) -> str:
        """A path for ``nsenter --net=`` and for ``enter``, valid while the lab is open."""
        return self._namespaces[self._number(host)]

    def popen(
        self,
        host: str,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        stdout: int | IO[Any] | None = None,
    ) -> subprocess.Popen[str]:
        """A process on a host. Its pid is the program's own."""
        inside = ["nsenter", f"--net={self.namespace(host)}"]
        process = subprocess.Popen([*inside, *argv], env=env, stdout=stdout, text=True)
        self._processes.append(process)
        return process

    def shape(self, source: str, target: str, link: Link) -> None:
        """Change one direction, for packets that are sent from now on; ``loss=1`` cuts it."""
        self._ask({"shape": [self._number(source), self._number(target), asdict(link)]})

    def cut(self, here: Sequence[str], there: Sequence[str], *, back: bool = True) -> None:
        """Nothing gets from ``here`` to ``there`` any more, nor ``back`` unless told otherwise."""
        self._shape_all(here, there, replace(self._link, loss=1.0), back=back)

    def mend(self, here: Sequence[str], there: Sequence[str]) -> None:
        """Both ways between ``here`` and ``there`` are what they were at the beginning."""
        self._shape_all(here, there, self._link, back=True)

    def _shape_all(
        self, here: Sequence[str], there: Sequence[str], link: Link, *, back: bool
    ) -> None:
        for pair in product(here, there):
            self.shape(*pair, link)
            if back:
                self.shape(*reversed(pair), link)

    def carried(self) -> dict[tuple[str, str], Carried]:
        """By (source, target)."""
        counts = self._ask({"count": True})
        return {
            (self.hosts[source], self.hosts[target]): Carried(nbytes, dropped)
            for source, target, nbytes, dropped in counts
        }

    def close(self) -> None:
        """Kill what runs on the hosts, children of its processes too, and wait for it."""
        with contextlib.suppress(OSError, ValueError):  # it is gone, or the lab is closed already
            self._tell({"end": True})
        for process in (self._forwarder, *self._processes):
            with process:  # waits for it and closes its pipes
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _number(self, host: str) -> int:
        return self.hosts.index(host)

    def _ask(self, command: dict[str, Any]) -> Any:
        try:
            self._tell(command)
        except OSError as error:
            raise LabError("the process that carries the lab's packets is gone") from error
        return self._answer()

    def _tell(self, command: dict[str, Any]) -> None:
        assert self._forwarder.stdin is not None
        self._forwarder.stdin.write(json.dumps(command) + "\n")
        self._forwarder.stdin.flush()

    def _answer(self) -> Any:
        assert self._forwarder.stdout is not None
        line = self._forwarder.stdout.readline()
        if not line:
            raise LabError("the process that carries the lab's packets is gone")
        return json.loads(line)


def enter(namespace: str) -> None:
    """Move the calling thread to a host; threads and processes that it starts follow.

    For a forked process, before it starts any thread: sockets that exist stay where they are.
    """
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            raise LabError(f"{namespace}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)
