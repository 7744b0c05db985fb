"""A swarm of 16 to 1,024 peers in virtual time: do meetings cost more when there are more peers?

Latencies are log-normal (sigma 1) and drawn anew for every message, 2 % of the peers crash per
period and as many restart or join, matching ``random_pairs``, cadence ``every_h``. A *period* is H
steps, the pace at which a peer looks for a partner; H is 20 steps of about a second, so that it is
two renewals of the membership. The payload is 8 numbers: messages are what counts here, not bytes.

``met``: share of windows (from one snapshot to the next) that ended with an exchange.
``in period``: share of the peers that were up through 1.5 periods, the longest that a window lasts
as a rule, and completed an exchange in that time. ``commit``: seconds from the offer that was
accepted to the moment at which both sides have applied it, a wait for the window to open (HOLD, up
to 7 s here) included. ``tree``: an all-reduce over a binary
tree on the same latencies, up and down, where every node waits for two messages (Monte Carlo). The
last table stands beside that of NoLoCo's latency analysis (arXiv 2506.10911, section 5.3), whose
exact tree is not known; there the unit is the mean latency.

Example: python tests/bench/scale.py --peers 16 64 256 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

from swarmnet.config import Choice
from swarmnet.exchange.driver import TOPIC
from swarmnet.sim import clock
from swarmnet.sim.network import Link, SimNetwork
from swarmnet.sim.peer import SimOptions, SimPeer
from swarmnet.sim.script import Churn, Script, churn
from swarmnet.sim.swarm import Swarm

MEAN_S, SIGMA = 0.05, 1.0
CHURN = 0.02
WARM_UP = 0.25
"""Share of the run that is not counted: all peers begin in step."""
BARS = {"in_period": 0.98, "offers": 1.5, "flat": 0.2}
TREE_STD = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
TREE_REFERENCE = {
    16: (4.0, 3.5, 3.8, 4.1, 4.4, 4.6),
    64: (6.0, 5.8, 7.0, 8.2, 9.2, 10.4),
    256: (8.0, 8.4, 10.6, 13.3, 16.3, 18.0),
    1024: (10.0, 11.0, 14.8, 19.4, 25.2, 30.9),
}


@dataclass(frozen=True)
class Row:
    """One size of swarm."""

    peers: int
    met: float
    in_period: float
    offers: float
    declined: float
    lost: float
    """Offers per exchange to peers that were gone."""
    commit_median_s: float
    commit_p99_s: float
    frames_per_period: float
    period_steps: float
    """Mean steps from one exchange to the next."""
    disagreement: float
    tree_s: float
    wall_s: float


@dataclass(frozen=True)
class Mark:
    """Counters at the beginning of what is counted."""

    at: float
    offers: int
    frames: int
    outcomes: Counter[str]
    steps: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--h", type=int, default=20, help="steps of about a second in a period")
    parser.add_argument("--periods", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    rows = []
    for n in args.peers:
        rows.append(measure(n, args.h, args.periods, args.seed))
        print(render(rows[-1:]), file=sys.stderr, flush=True)
    result = {"rows": [asdict(row) for row in rows], "bars": verdict(rows), "pairs": pairs()}
    print(json.dumps(result) if args.json else f"{render(rows)}\n{render_pairs(result)}")


def measure(n: int, h: int, periods: int, seed: int) -> Row:
    began = time.perf_counter()
    row = clock.run(simulate(n, h, periods, seed))
    return Row(**row, tree_s=tree_s(n, seed), wall_s=round(time.perf_counter() - began, 1))


async def simulate(n: int, h: int, periods: int, seed: int) -> dict[str, float]:
    network = SimNetwork(lambda a, b: Link(MEAN_S, 100e6, SIGMA), seed=seed)
    options = SimOptions(
        Choice(name="random_pairs").build("matching"),
        Choice(name="every_h", h=h).build("cadence"),
        renew_s=10.0,
        records=64,
    )
    swarm = await Swarm(n, options, network, seed).start()
    lasts_s = float(periods * h)
    swarm.play(Script().follow(churn(n, Churn(CHURN / h, away_s=h), lasts_s, seed)))
    await asyncio.sleep(WARM_UP * lasts_s)
    mark = marked(swarm)
    spans = Spans(swarm, 1.5 * h)
    while clock.now() + spans.length_s < lasts_s:
        await spans.watch()
    await asyncio.sleep(lasts_s - clock.now())
    assert network.bugs == []
    return figures(swarm, mark, h) | {"peers": n, "in_period": spans.share}


class Spans:
    """Who of those that were up all the time has completed an exchange in a stretch of time."""

    def __init__(self, swarm: Swarm, length_s: float) -> None:
        self._swarm = swarm
        self.length_s = length_s
        self._up = self._met = 0

    async def watch(self) -> None:
        before = [(peer, exchanged(peer)) for peer in self._swarm.live]
        await asyncio.sleep(self.length_s)
        live = set(self._swarm.live)
        lasted = [exchanged(peer) > count for peer, count in before if peer in live]
        self._up += len(lasted)
        self._met += sum(lasted)

    @property
    def share(self) -> float:
        return self._met / self._up


def exchanged(peer: SimPeer) -> int:
    return sum(event.outcome in ("ok", "late") for event in peer.events)


def everybody(swarm: Swarm) -> list[SimPeer]:
    return [*swarm.peers, *swarm.former]


def marked(swarm: Swarm) -> Mark:
    traffic = swarm.network.traffic
    steps = sum(peer.steps for peer in everybody(swarm))
    frames = sum(traffic.frames.values())
    return Mark(clock.now(), traffic.opened[TOPIC], frames, swarm.outcomes(), steps)


def figures(swarm: Swarm, mark: Mark, h: int) -> dict[str, float]:
    end, outcomes = marked(swarm), swarm.outcomes() - mark.outcomes
    exchanges = outcomes["ok"] / 2
    windows = sum(outcomes[name] for name in ("ok", "solo", "pending"))
    offers, steps = end.offers - mark.offers, end.steps - mark.steps
    commits = commit_times(swarm)
    return {
        "met": outcomes["ok"] / windows,
        "offers": offers / exchanges,
        "declined": (offers - outcomes["failed"] - exchanges) / exchanges,
        "lost": outcomes["failed"] / exchanges,
        "commit_median_s": statistics.median(commits),
        "commit_p99_s": statistics.quantiles(commits, n=100)[98],
        "frames_per_period": (end.frames - mark.frames) / (steps / h),
        "period_steps": steps / outcomes["ok"],
        "disagreement": swarm.disagreement(),
    }


def commit_times(swarm: Swarm) -> list[float]:
    """The offerer's time of each exchange: both sides know its key, the acceptor began later."""
    longest: dict[tuple[str, str, int], float] = {}
    for peer in everybody(swarm):
        for event in peer.events:
            if event.outcome == "ok":
                a, b = sorted((peer.me, event.partner))
                key = (a, b, event.round)
                longest[key] = max(longest.get(key, 0.0), event.seconds)
    return list(longest.values())


# ---- beside it: a tree on the same latencies, and the reference table ---------------------------


def tree_s(n: int, seed: int, rounds: int = 400) -> float:
    """Median seconds of an all-reduce over a binary tree: a node waits for both its children."""
    return MEAN_S * statistics.median(tree(n, log_sigma=SIGMA, seed=seed, rounds=rounds))


def tree(n: int, log_sigma: float, seed: int, rounds: int) -> list[float]:
    """Time up and down a binary tree of ``n`` leaves in mean latencies, once per round."""
    rng = np.random.default_rng(seed)
    done = []
    for _ in range(rounds):
        up = np.zeros(n)
        while len(up) > 1:
            up = (up + drawn(rng, log_sigma, len(up))).reshape(-1, 2).max(axis=1)
        down = up
        while len(down) < n:
            down = np.repeat(down, 2)
            down = down + drawn(rng, log_sigma, len(down))
        done.append(float(down.max()))
    return done


def drawn(rng: np.random.Generator, log_sigma: float, n: int) -> np.ndarray:
    return rng.lognormal(-(log_sigma**2) / 2, log_sigma, n)


def pairs(rounds: int = 20_000) -> list[dict[str, object]]:
    """Latencies of mean 1: E[max of two] by formula and by simulation, cost of a pair, trees."""
    rows: list[dict[str, object]] = []
    for column, std in enumerate(TREE_STD):
        sigma = math.sqrt(math.log(1 + std**2))
        rng = np.random.default_rng(column)
        slower = float(drawn(rng, sigma, 2 * rounds).reshape(-1, 2).max(axis=1).mean())
        formula = 1 + math.erf(sigma / 2)
        trees = {
            n: {
                "measured": statistics.fmean(tree(n, sigma, n, 200)) / (2 * formula),
                "reference": TREE_REFERENCE[n][column],
            }
            for n in TREE_REFERENCE
        }
        rows.append(
            {
                "std": std,
                "max_formula": formula,
                "max_measured": slower,
                "pair": 2 * formula,
                "tree_over_pair": trees,
            }
        )
    return rows


# ---- verdict and text ----------------------------------------------------------------------------


def verdict(rows: list[Row]) -> dict[str, bool]:
    return {
        "in_period": all(row.in_period >= BARS["in_period"] for row in rows),
        "offers": all(row.offers <= BARS["offers"] for row in rows),
        "median_flat": flat([row.commit_median_s for row in rows]),
        "p99_flat": flat([row.commit_p99_s for row in rows]),
        "frames_flat": flat([row.frames_per_period for row in rows]),
    }


def flat(values: list[float]) -> bool:
    """Within 20 % of their median, whatever N is."""
    middle = statistics.median(values)
    return all(abs(value / middle - 1) <= BARS["flat"] for value in values)


def render(rows: list[Row]) -> str:
    lines = [
        f"{'peers':>6}{'met':>8}{'in period':>11}{'offers':>8}{'declined':>10}{'lost':>7}"
        f"{'commit':>8}{'p99':>7}{'frames':>8}{'steps':>7}{'disagr.':>9}{'tree':>7}{'wall':>7}"
    ]
    lines += [
        f"{r.peers:6}{r.met:8.2%}{r.in_period:11.2%}{r.offers:8.2f}{r.declined:10.2f}{r.lost:7.2f}"
        f"{r.commit_median_s:8.3f}{r.commit_p99_s:7.3f}{r.frames_per_period:8.2f}"
        f"{r.period_steps:7.2f}{r.disagreement:9.2f}{r.tree_s:7.3f}{r.wall_s:7.0f}"
        for r in rows
    ]
    return "\n".join(lines)


def render_pairs(result: dict[str, object]) -> str:
    lines = [
        f"bars met: {result['bars']}",
        "tree / pair, measured (reference), latencies of mean 1:",
    ]
    for row in result["pairs"]:
        trees = "  ".join(
            f"{n}: {cell['measured']:.1f} ({cell['reference']})"
            for n, cell in row["tree_over_pair"].items()
        )
        lines.append(
            f"std {row['std']:<4} E[max] {row['max_measured']:.3f} ({row['max_formula']:.3f})"
            f"  pair {row['pair']:.3f}  {trees}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
