"""Sequences per second of three stages: swarmnet beside torch's own schedules, in one run.

    python tests/bench/pipeline.py --json                 # zero delay: all ways, one thread a stage
    python tests/bench/pipeline.py --rtt-ms 100 --mbit 100        # each process on a host of a lab
    python tests/bench/pipeline.py --slow 1:5 --spare 1           # one peer five times slower
    python tests/bench/pipeline.py --widths 128,256,512           # utilisation: the square-cube law

torch's processes talk over gloo, which neither encrypts nor authenticates. The stages' model,
microbatches and global batch are the same for all. ``in turn``: one process calls its stages one
after another. The ratio is to the better of torch's schedules.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipeline_swarm import Way, run_swarm
from pipeline_torch import run_torch
from pipeline_work import Row, Work, add_work, render, run_in_turn, work_of

from tests.netlab.lab import Lab, Link

SCHEDULES = ("1f1b", "gpipe")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rtt-ms", type=float, default=0.0, help="between hosts of a lab")
    parser.add_argument("--mbit", type=float, default=0.0, help="of each link of a lab")
    parser.add_argument("--spare", type=int, default=0, help="peers of a stage beyond the first")
    parser.add_argument("--widths", default="", help="several, with commas: utilisation of each")
    parser.add_argument("--codecs", default="raw,int8", help="of swarmnet's boundaries")
    parser.add_argument("--without-torch", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_work(parser)
    args = parser.parse_args()
    work = work_of(args)
    widths = [int(width) for width in args.widths.split(",") if width] or [work.width]
    rows = [row for width in widths for row in measure(args, replace(work, width=width))]
    if args.json:
        print(json.dumps([row.as_dict() | {"ratio": ratio(row, rows)} for row in rows]))
        return
    render(rows)
    for row in rows:
        share = utilisation(row)
        line = f"{row.name:28}width {row.work.width:5}  busy {share:5.1%} of the slowest stage"
        better = ratio(row, rows)
        print(line + (f"  {better:.2f} times torch's better" if better else ""))


def measure(args: argparse.Namespace, work: Work) -> Iterator[Row]:
    """Each way in turn, so that none disturbs another."""
    ways = [
        Way(f"swarmnet, {codec}", codec, args.spare) for codec in args.codecs.split(",") if codec
    ]
    if not args.rtt_ms and not args.without_torch:
        yield run_in_turn(work)
    for schedule in () if args.without_torch else SCHEDULES:
        with network(args, work.stages) as lab:
            yield run_torch(schedule, work, lab)
    for way in ways:
        with network(args, work.stages * (1 + args.spare) + 1) as lab:
            yield run_swarm(work, way, lab)


@contextmanager
def network(args: argparse.Namespace, hosts: int) -> Iterator[Lab | None]:
    if not args.rtt_ms and not args.mbit:
        yield None
        return
    link = Link(delay_s=args.rtt_ms / 2000, rate=args.mbit * 1e6 / 8)
    with Lab([f"host{index}" for index in range(hosts)], link) as lab:
        yield lab


def utilisation(row: Row) -> float:
    """Share of a batch in which the dearest stage computes."""
    return max(row.busy_s.values()) / row.batch_s


def ratio(row: Row, rows: Sequence[Row]) -> float | None:
    """Sequences per second over those of torch's better schedule at the same width."""
    torch = [r.sequences_per_s for r in rows if r.name.startswith("torch") and r.work == row.work]
    return row.sequences_per_s / max(torch) if torch and row.name.startswith("swarmnet") else None


if __name__ == "__main__":
    main()
