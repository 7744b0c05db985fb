"""How often may a swarm meet on a slow link? The smallest H that the link keeps up with.

Two peers with a model of 10 M parameters behind lines of 100 Mb/s and 100 ms round trip, steps of
one second, in virtual time. A codec is its payload size; the bytes themselves are zeros. H suffices
when at least 95 % of the windows meet and 99 % of the meetings take less than H steps, so that one
is over before the next window is ripe. The smallest H is found by trying each from 1 on.

``stall``: share of the training task's time between the end of a step and the start of the next.
By construction it is near 0: the task only hands its snapshot over and takes results. What the
desk's lock costs in real time is measured on real processes. A stream has at most 1 MiB under way,
as libp2p's; that is why a meeting takes longer than its bytes need on the line.

Example: python tests/bench/stall.py --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from dataclasses import asdict, dataclass

from swarmnet.config import Choice
from swarmnet.exchange.driver import TOPIC
from swarmnet.sim import clock
from swarmnet.sim.network import Access, Link, SimNetwork
from swarmnet.sim.peer import SimOptions
from swarmnet.sim.swarm import Swarm

PARAMETERS = 10_000_000
PAYLOADS = {"raw": 40_000_000, "bf16": 20_000_000, "int8": 10_040_000}
LINE = Access(up=12.5e6, down=12.5e6)
LINK = Link(latency_s=0.05, bandwidth=12.5e6)
WINDOWS = 60
BAR_MET, BAR_STALL = 0.95, 0.01


@dataclass(frozen=True)
class Row:
    codec: str
    h: int
    met: float
    """Share of windows that ended with a meeting."""
    steps_per_meeting: float
    meeting_s: float
    """Median time from the accepted offer to the commit."""
    transfer_s: float
    """What the payload alone needs on the line."""
    stall: float
    offers: float
    suffices: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--up-to", type=int, default=12, help="largest H to try")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    tried: list[Row] = []
    for codec, nbytes in PAYLOADS.items():
        for h in range(1, args.up_to + 1):
            tried.append(clock.run(measure(args.peers, codec, nbytes, h)))
            print(render(tried[-1:]), file=sys.stderr, flush=True)
            if tried[-1].suffices:
                break
    smallest = {row.codec: row.h for row in tried if row.suffices}
    if args.json:
        print(json.dumps({"smallest_h": smallest, "rows": [asdict(row) for row in tried]}))
    else:
        print(render([row for row in tried if row.suffices]))


async def measure(n: int, codec: str, nbytes: int, h: int) -> Row:
    network = SimNetwork(lambda a, b: LINK, lambda peer: LINE)
    options = SimOptions(
        Choice(name="random_pairs").build("matching"),
        Choice(name="every_h", h=h).build("cadence"),
        nbytes=nbytes,
    )
    swarm = await Swarm(n, options, network).start()
    lasts_s = float(WINDOWS * h)
    await asyncio.sleep(lasts_s)
    assert network.bugs == []
    ends = swarm.outcomes()
    steps = sum(peer.steps for peer in swarm.peers)
    seconds = [e.seconds for peer in swarm.peers for e in peer.events if e.outcome == "ok"]
    met = ends["ok"] / (ends.total() - ends["failed"])
    stall = sum(peer.waited_s for peer in swarm.peers) / (n * lasts_s)
    slowest_s = statistics.quantiles(seconds, n=100)[98]
    return Row(
        codec=codec,
        h=h,
        met=met,
        steps_per_meeting=steps / ends["ok"],
        meeting_s=statistics.median(seconds),
        transfer_s=nbytes / LINE.up,
        stall=stall,
        offers=network.traffic.opened[TOPIC] / (ends["ok"] / 2),
        suffices=met >= BAR_MET and stall < BAR_STALL and slowest_s < h * options.step_s,
    )


def render(rows: list[Row]) -> str:
    lines = [
        f"{'codec':8}{'H':>4}{'met':>8}{'steps/meeting':>15}{'meeting s':>11}{'bytes alone':>13}"
        f"{'stall':>9}{'offers':>8}  suffices"
    ]
    lines += [
        f"{r.codec:8}{r.h:4}{r.met:8.1%}{r.steps_per_meeting:15.2f}{r.meeting_s:11.2f}"
        f"{r.transfer_s:13.2f}{r.stall:9.3%}{r.offers:8.2f}  {r.suffices}"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
