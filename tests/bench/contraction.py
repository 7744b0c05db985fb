"""How fast disagreement shrinks when peers choose their partners themselves, per exchange.

python tests/bench/contraction.py [--json] [--peers 8 16 32 64]

Simulated peers that do not drift, plain averaging of pairs (alpha 0, gamma 1). With V the variance
between replicas, one scheduled round of N/2 disjoint random pairs leaves ``1 - N / (2 (N - 1))``
of it on average, and N/2 pairs drawn one after the other leave ``(1 - 1 / (N - 1)) ^ (N/2)``: some
meet twice meanwhile and others never. A rate is ``-ln`` of ``V_t / V_0``, its mean over seeds,
per exchange; the ratio of the measured one to the scheduled one is what is printed. In small swarms
the bias against recent partners comes close to a hypercube, which reaches the exact mean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys

import numpy as np

from swarmnet.registry import find
from swarmnet.sim import clock
from swarmnet.sim.network import SimNetwork
from swarmnet.sim.peer import PhoneBook, SimOptions, SimPeer

WINDOWS = 6
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--h", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, default=6)
    args = parser.parse_args()
    rows = []
    for n in args.peers:
        for h in args.h:
            rows.append(summary(n, h, args.seeds))
            print(describe(rows[-1]), file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(json.dumps({"contraction": rows}))


def scheduled(n: int) -> float:
    """Rate per exchange of rounds of disjoint random pairs."""
    return -math.log(1 - n / (2 * (n - 1))) / (n / 2)


def sequential(n: int) -> float:
    """Rate per exchange of independent random pairs, one after the other."""
    return -math.log(1 - 1 / (n - 1))


def rate(n: int, h: int, seeds: int) -> float:
    """Rate per exchange of ``n`` peers that meet every ``h`` steps, each when it is ripe."""
    runs = [clock.run(_run(n, h, seed)) for seed in range(seeds)]
    left, exchanges = np.mean(runs, axis=0)
    return -math.log(left) / exchanges


async def _run(n: int, h: int, seed: int) -> tuple[float, float]:
    """V_t / V_0 and the exchanges in between."""
    matching, cadence = find("matching", "random_pairs"), find("cadence", "every_h")
    options = SimOptions(
        matching(matching.Config()), cadence(cadence.Config(h=h)), renew_s=2.0 * h, drift=0.0
    )
    network, book = SimNetwork(), PhoneBook()
    peers = [SimPeer(f"peer{_name(i)}", network, book, options, 1000 * seed + i) for i in range(n)]
    for peer in peers:
        await peer.start()
    await asyncio.sleep(3 * h)  # until views are whole and windows have drifted apart
    begun, before = _met(peers), _variance(peers)
    await asyncio.sleep(WINDOWS * h)
    return _variance(peers) / before, _met(peers) - begun


def _name(index: int) -> str:
    high, low = divmod(index, len(LETTERS))
    return LETTERS[high] * 4 + LETTERS[low] * 4


def _met(peers: list[SimPeer]) -> float:
    return sum(event.outcome == "ok" for peer in peers for event in peer.events) / 2


def _variance(peers: list[SimPeer]) -> float:
    stack = np.stack([peer.subject.live for peer in peers])
    return float(np.mean((stack - stack.mean(0)) ** 2))


def summary(n: int, h: int, seeds: int) -> dict[str, float]:
    found = rate(n, h, seeds)
    return {
        "peers": n,
        "h": h,
        "per_round": math.exp(-found * n / 2),
        "scheduled_per_round": math.exp(-scheduled(n) * n / 2),
        "ratio": found / scheduled(n),
        "sequential_ratio": sequential(n) / scheduled(n),
    }


def describe(row: dict[str, float]) -> str:
    return (
        f"{row['peers']:4d} peers, h {row['h']:3d}: V after N/2 exchanges {row['per_round']:.3f}, "
        f"scheduled {row['scheduled_per_round']:.3f}; rate {row['ratio']:.2f} "
        f"of scheduled (one after the other: {row['sequential_ratio']:.2f})"
    )


if __name__ == "__main__":
    main()
