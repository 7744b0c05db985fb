"""Whom to meet: the policies of ``matching/`` side by side, in simulation and on real processes.

Replicas begin apart, and what counts is how fast their disagreement falls for what it costs, in
``-ln(variance / first variance)``: per exchange of a peer, per second, per byte. The tables print
ratios to ``random_pairs``; the JSON has the figures themselves.

    scheduled     the matching's schedule, everybody meeting at once (as in the consensus phase);
                  inf: it ends at the exact mean
    equal         the exchange as in training: a peer meets when its window is ripe
    slow          the same, the first peer's steps ten times as long
    lossy         the same, every fifth stream breaks after a random number of bytes
    drift         the same, every step adds noise: the disagreement that this leaves
    real          processes with a libp2p daemon each, on loopback

``per exchange`` and ``per second`` are those rates, ``stays`` the disagreement under drift (less is
better), ``offers`` offers per meeting, ``uneven`` standard deviation over mean of the meetings of a
pair, ``apart`` the longest time until meetings have joined all peers, in windows of H steps;
``slow met`` and ``partners`` say in which share of its windows the slow peer met, and how many.

    python tests/bench/matching.py --json
    python tests/bench/matching.py --peers 16 --seeds 1 --skip-real
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import matching_peer
import numpy as np
from matching_peer import Answer, Order, Spec
from matching_sim import CALM, Case, H, measure, scheduled_rate

from swarmnet.config import Choice

BASE = "random_pairs"
POLICIES = {
    BASE: Choice(name=BASE),
    "uniform": Choice(name="self_repellent", alpha=0.0),  # type: ignore[call-arg]
    "self_repellent": Choice(name="self_repellent"),
    "ring": Choice(name="ring"),
}
SCHEDULED = {**POLICIES, "hypercube": Choice(name="hypercube")}
REAL = (BASE, "self_repellent", "ring")
SIM_S = 160.0
SLOW = 10.0
LOSSY = 0.2
SCHEDULED_ROUNDS = 60
ANSWER_S = 120.0
PRELOAD = ["swarmnet.net.node", "swarmnet.net.thread", "swarmnet.exchange.driver"]
COLUMNS = {
    "rate_per_exchange": "per exchange",
    "rate_per_second": "per second",
    "rate_per_kbyte": "per byte",
    "stationary": "stays",
}
PLAIN = {
    "offers_per_exchange": "offers",
    "unevenness": "uneven",
    "apart_windows": "apart",
    "slow_met": "slow met",
    "slow_partners": "partners",
}
Table = dict[str, dict[str, float]]


def main() -> int:
    options = parse()
    tables: dict[str, Table] = {}
    for n in options.peers:
        tables[f"scheduled, {n} peers"] = scheduled(n, options.seeds)
        for case in cases(n):
            tables[f"{case.name}, {n} peers"] = simulate(case, options.seeds)
    if not options.skip_real:
        tables[f"real, {options.real_peers} processes"] = real(options)
    if options.json:
        print(json.dumps({"h": H, "seeds": options.seeds, "tables": finite(tables)}))
    else:
        print("\n\n".join(render(name, table) for name, table in tables.items()))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--real-peers", type=int, default=6)
    parser.add_argument("--real-seconds", type=float, default=10.0, help="per policy")
    parser.add_argument("--numbers", type=int, default=100_000, help="of a real peer's vector")
    parser.add_argument("--skip-real", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


def cases(n: int) -> list[Case]:
    return [
        Case("equal", n, SIM_S),
        Case("slow", n, SIM_S, slow=SLOW),
        Case("lossy", n, SIM_S, lossy=LOSSY),
        Case("drift", n, SIM_S, drift=1.0),
        Case("slow drift", n, SIM_S, slow=SLOW, drift=1.0),
    ]


def scheduled(n: int, seeds: int) -> Table:
    def rate(policy: Choice) -> float:
        rates = (scheduled_rate(policy, n, SCHEDULED_ROUNDS, seed) for seed in range(seeds))
        return statistics.mean(rates)

    return {name: {"rate_per_exchange": rate(policy)} for name, policy in SCHEDULED.items()}


def simulate(case: Case, seeds: int) -> Table:
    table: Table = {}
    for name, policy in POLICIES.items():
        runs = [asdict(measure(case, policy, seed)) for seed in range(seeds)]
        row = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        row["apart_windows"] = row.pop("apart_s") / H
        if case.slow == 1:
            del row["slow_met"], row["slow_partners"]
        table[name] = {key: value for key, value in row.items() if not math.isnan(value)}
        say(f"{case.name}, {case.peers} peers: {name}")
    return table


def real(options: argparse.Namespace) -> Table:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    table: Table = {}
    with processes(context, options.real_peers) as pipes:
        for name in REAL:
            order = Order(name, POLICIES[name], options.numbers, options.real_seconds, seed=1)
            for pipe in pipes.values():
                pipe.send(order)
            answers = {peer: answer(pipe) for peer, pipe in pipes.items()}
            table[name] = figures(answers, options.real_seconds)
            say(f"real: {name}")
    return table


@contextlib.contextmanager
def processes(context: Any, n: int) -> Iterator[dict[str, Connection]]:
    """Pipes to peers that know each other, by peer id."""
    with tempfile.TemporaryDirectory() as folder:
        started, pipes, addresses = [], dict[str, Connection](), dict[str, str]()
        try:
            for index in range(n):
                ours, theirs = context.Pipe()
                spec = Spec(index, Path(folder), tuple(list(addresses.values())[:1]))
                process = context.Process(
                    target=matching_peer.main, args=(theirs, spec), daemon=True
                )
                process.start()
                started.append(process)
                theirs.close()
                peer, address = answer(ours)
                pipes[peer], addresses[peer] = ours, address
            for pipe in pipes.values():
                pipe.send(addresses)
            for pipe in pipes.values():
                answer(pipe)
            say(f"{n} processes are connected")
            yield pipes
        finally:
            for pipe in pipes.values():
                with contextlib.suppress(OSError):
                    pipe.send(None)
            for process in started:
                process.join(10)
                process.kill()


def answer(pipe: Connection) -> Any:
    if not pipe.poll(ANSWER_S):
        raise TimeoutError(f"a peer gave no answer for {ANSWER_S:.0f} s")
    return pipe.recv()


def figures(answers: dict[str, Answer], seconds: float) -> dict[str, float]:
    pairs = Counter(
        frozenset((me, other)) for me, answer in answers.items() for other in answer.partners
    )
    counts = [pairs[frozenset(pair)] for pair in combinations(answers, 2)]
    first = variance([answer.before for answer in answers.values()])
    left = variance([answer.after for answer in answers.values()])
    fallen = -math.log(max(left / first, CALM**3))  # a few peers can become exactly one
    exchanges = 2 * sum(counts) / len(answers)
    sent = sum(a.bytes_sent for a in answers.values()) / len(answers)
    return {
        "rate_per_exchange": fallen / exchanges,
        "rate_per_second": fallen / seconds,
        "rate_per_kbyte": 1e3 * fallen / sent,
        "exchanges_per_window": 2 * sum(counts) / sum(a.windows for a in answers.values()),
        "offers_per_exchange": sum(a.offers for a in answers.values()) / sum(counts),
        "unevenness": float(np.std(counts) / np.mean(counts)),
    }


def variance(vectors: list[np.ndarray]) -> float:
    stack = np.stack(vectors)
    return float(np.mean((stack - stack.mean(axis=0)) ** 2))


def finite(value: Any) -> Any:
    """JSON knows no infinity: the rate of a schedule that ends at the exact mean is null."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return None if value == math.inf else value


def render(title: str, table: Table) -> str:
    ratios = {key: name for key, name in COLUMNS.items() if key in table[BASE]}
    plain = {key: name for key, name in PLAIN.items() if key in table[BASE]}
    heads = [*ratios.values(), *plain.values()]
    lines = [f"{title:<24}" + "".join(f"{head:>14}" for head in heads)]
    for name, row in table.items():
        cells = [f"{row[key] / table[BASE][key]:14.2f}" for key in ratios]
        cells += [f"{row[key]:14.2f}" for key in plain]
        lines.append(f"  {name:<22}" + "".join(cells))
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
