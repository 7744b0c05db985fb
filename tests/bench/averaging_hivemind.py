"""hivemind's side of ``averaging.py``: its ``DecentralizedAverager``, in the best setting found.

As in its own ``benchmark_averaging``, one process starts all averagers; each has a process of its
own for averaging, one for its DHT, and a ``p2pd``.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from procfs import children, cpu_seconds, written_bytes

from swarmnet.net import engine  # first: it imports hivemind quietly  # noqa: F401

ROUND_S = 60.0


@dataclass(frozen=True)
class Setting:
    """What can be tuned; the defaults are the best of four that were tried.

    Median seconds of 5 rounds of 16 peers on 2 cores, one run each, all with request_s=1: 2.9 with
    these, 4.2 without ``bits``; 3.3 and 3.0 at matchmaking_s=1. Runs differ by half a second.
    """

    matchmaking_s: float = 2.0
    request_s: float = 1.0
    bits: bool = True
    """Begin in buckets of two peers; hivemind's own shuffling keeps them so."""


@dataclass(frozen=True)
class HivemindResult:
    seconds: list[float]
    success: float
    bytes_per_peer: int
    cpu_seconds: float


def main(pipe: Connection, peers: int, rounds: int, parameters: int, setting: Setting) -> None:
    """Sends one HivemindResult."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # the only one that hivemind works with
    dhts, averagers = _start(peers, parameters, setting)
    try:
        pipe.send(_measure(dhts, averagers, rounds))
    finally:
        with ThreadPoolExecutor(2 * peers) as pool:
            list(pool.map(lambda process: process.shutdown(), averagers))
            list(pool.map(lambda process: process.shutdown(), dhts))


def _start(peers: int, parameters: int, setting: Setting) -> tuple[list[Any], list[Any]]:
    from hivemind import DHT
    from hivemind.averaging import DecentralizedAverager

    logging.getLogger("hivemind").setLevel(logging.CRITICAL)
    listen = {"host_maddrs": ["/ip4/127.0.0.1/tcp/0"], "start": True}
    dhts = [DHT(**listen)]
    known = dhts[0].get_visible_maddrs()
    dhts += [DHT(initial_peers=known, **listen) for _ in range(peers - 1)]
    width = max(0, (peers // 2 - 1).bit_length())
    averagers = []
    for index, dht in enumerate(dhts):
        bits = f"{index // 2:0{width}b}" if setting.bits and width else ""
        averagers.append(
            DecentralizedAverager(
                [torch.randn(parameters)],
                dht,
                start=True,
                prefix="averaging",
                target_group_size=2,
                initial_group_bits=bits,
                min_matchmaking_time=setting.matchmaking_s,
                request_timeout=setting.request_s,
            )
        )
    return dhts, averagers


def _measure(dhts: list[Any], averagers: list[Any], rounds: int) -> HivemindResult:
    seconds, done, sent_before, cpu_before = [], 0, 0, 0.0
    for index in range(rounds + 1):
        if index == 1:
            sent_before, cpu_before = _written(dhts), _cpu(dhts, averagers)
        began = time.perf_counter()
        steps = [averager.step(timeout=ROUND_S, wait=False) for averager in averagers]
        results = [_succeeded(step) for step in steps]
        if index:
            seconds.append(time.perf_counter() - began)
            done += sum(results)
    # A daemon writes what it sends to the network and what arrived to its peer: half of it is sent.
    sent = (_written(dhts) - sent_before) // 2
    peers = len(averagers)
    cpu = (_cpu(dhts, averagers) - cpu_before) / rounds
    return HivemindResult(seconds, done / (rounds * peers), sent // (rounds * peers), cpu)


def _succeeded(step: Any) -> bool:
    try:
        return step.result(timeout=2 * ROUND_S) is not None
    except Exception:  # noqa: BLE001 - hivemind raises whatever its processes met
        return False


def _written(dhts: list[Any]) -> int:
    """Bytes written so far by all daemons, which are the children of the DHT processes."""
    return sum(written_bytes(child) for dht in dhts for child in children(dht.pid))


def _cpu(dhts: list[Any], averagers: list[Any]) -> float:
    daemons = [child for dht in dhts for child in children(dht.pid)]
    own = [process.pid for process in (*dhts, *averagers)]
    return sum(cpu_seconds(pid) for pid in (*own, *daemons))
