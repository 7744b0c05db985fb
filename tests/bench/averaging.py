"""Seconds that a swarm of 16 needs to average in pairs: bare streams, swarmnet, hivemind.

The work is that of hivemind's ``benchmark_averaging``: 16 peers on localhost, 2.37 M parameters in
float32, groups of two. Every round has the same scheduled random pairs for all rows, and lasts
until the last pair is done. The rows:

    floor raw, int8    what ``p2pd`` itself takes: the same bytes between the same pairs over raw
                       streams of hivemind's ``P2P``, in big writes, without frames or averaging
    raw, int8          our whole exchange: offer, accept, payload both ways, have both ways, both
                       payloads decoded and checked, the mean, and the correction applied
    hivemind           its ``DecentralizedAverager`` with target_group_size=2, best setting found

Each of our peers is a process as in training, forked from one preloaded server. The first four rows
take turns round by round in the same processes over the same daemons, so a busy machine slows them
alike: read the ratios, to the median of ``floor raw``. ``MB/peer`` is what a peer sends per round,
``cpu s`` what a round takes of all processes together, daemons included; other work on the machine
moves it less than the seconds.
``memory`` is one peer and its daemon before and after 200 further exchanges, as resident bytes.

    python tests/bench/averaging.py --json
    python tests/bench/averaging.py --peers 4 --rounds 20 --skip-hivemind
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import averaging_hivemind
import averaging_peer
from averaging_peer import Meet, Met, Spec
from table import Row, render

from swarmnet.matching.random_pairs import RandomPairs

CODECS = ("raw", "int8")
WAYS = ("floor raw", "raw", "floor int8", "int8")
BARS = {"raw / floor": 1.3, "int8 / raw": 0.7}
SCHEDULE_SEED = 0
WARM_UP = 3
MEMORY_WARM_UP = 20
MEMORY_BYTES = 2_000_000_000
ANSWER_S = 120.0
PRELOAD = [
    "torch._dynamo",  # imported by the first optimizer that is made
    "swarmnet.net.node",
    "swarmnet.net.thread",
    "swarmnet.exchange.driver",
    "swarmnet.train.replica",
    "swarmnet.codec.int8",
    "swarmnet.codec.raw",
    "swarmnet.data.stdlib",
    "swarmnet.inner.adamw",
    "swarmnet.matching.hypercube",
    "swarmnet.model.causal_lm",
    "swarmnet.outer.average",
    "swarmnet.reduce.mean",
]


@dataclass(frozen=True)
class Case:
    """How many meet, and how much each of them holds."""

    peers: int
    parameters: int

    @property
    def memory_exchanges(self) -> int:
        """Enough to see growth, in bounded time."""
        return min(200, MEMORY_BYTES // (4 * self.parameters))


CASES = (Case(16, 2_370_000), Case(2, 25_000_000))


@dataclass
class Peer:
    """One process, as the coordinator sees it."""

    process: BaseProcess
    pipe: Connection
    id: str = ""
    address: str = ""

    def answer(self) -> Any:
        if not self.pipe.poll(ANSWER_S):
            raise TimeoutError(f"a peer gave no answer for {ANSWER_S:.0f} s")
        return self.pipe.recv()


@dataclass
class Tally:
    """What the rounds of one way came to."""

    seconds: list[float] = field(default_factory=list)
    answers: list[Met] = field(default_factory=list)
    cpu: Counter[str] = field(default_factory=Counter)
    """Seconds of the peers' own processes, and of their daemons."""

    def row(self, name: str, floor: float) -> Row:
        ok = [met for met in self.answers if met.ok]
        median = statistics.median(self.seconds)
        return Row(
            name=name,
            seconds_median=median,
            seconds_worst=max(self.seconds),
            success=len(ok) / len(self.answers),
            bytes_per_peer=sum(met.bytes_sent for met in ok) // max(1, len(ok)),
            cpu_seconds=self.cpu.total() / len(self.seconds),
            ratio=median / floor,
        )


def main() -> int:
    options = parse()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    cases = [Case(options.peers, options.parameters)] if options.peers else list(CASES)
    results = [measure_case(context, case, options) for case in cases]
    if options.json:
        print(json.dumps({"bars": BARS, "cases": results}))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=0, help="only this case")
    parser.add_argument("--parameters", type=int, default=2_370_000, help="of that case")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--skip-hivemind", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


def measure_case(context: Any, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    with swarm(context, case) as peers:
        tallies = measure(peers, options.rounds)
        memory = measure_memory(peers, case)
    floor = statistics.median(tallies[WAYS[0]].seconds)
    rows = [tally.row(name, floor) for name, tally in tallies.items()]
    if not options.skip_hivemind:
        rows.append(hivemind_row(context, case, options.rounds, floor))
    return report(case, rows, tallies, memory, as_json=options.json)


@contextlib.contextmanager
def swarm(context: Any, case: Case) -> Iterator[list[Peer]]:
    """All peers, connected with each other; the first one is where the others join."""
    with tempfile.TemporaryDirectory() as folder:
        peers: list[Peer] = []
        try:
            for index in range(case.peers):
                bootstrap = (peers[0].address,) if peers else ()
                spec = Spec(index, Path(folder), case.parameters, CODECS, bootstrap)
                peers.append(start(context, spec))
                if index == 0:
                    introduce(peers[0])
            for peer in peers[1:]:
                introduce(peer)
            say(f"{len(peers)} peers are up")
            for peer in peers:
                peer.pipe.send({other.id: other.address for other in peers})
            for peer in peers:
                peer.answer()
            say("all pairs are connected")
            yield peers
        finally:
            stop(peers)


def start(context: Any, spec: Spec) -> Peer:
    ours, theirs = context.Pipe()
    process = context.Process(target=averaging_peer.main, args=(theirs, spec), daemon=True)
    process.start()
    theirs.close()
    return Peer(process, ours)


def introduce(peer: Peer) -> None:
    peer.id, peer.address = peer.answer()


def stop(peers: list[Peer]) -> None:
    for peer in peers:
        with contextlib.suppress(OSError):
            peer.pipe.send(None)
    for peer in peers:
        peer.process.join(10)
        peer.process.kill()


def measure(peers: list[Peer], rounds: int) -> dict[str, Tally]:
    tallies = {way: Tally() for way in WAYS}
    for index in range(rounds + WARM_UP):
        pairs = schedule(peers, index)
        for way, tally in tallies.items():
            before = cpu_so_far(peers)
            seconds, answers = meet(way, pairs)
            if index >= WARM_UP:
                tally.seconds.append(seconds)
                tally.answers += answers
                tally.cpu.update(cpu_so_far(peers))
                tally.cpu.subtract(before)
        say(f"round {index - WARM_UP + 1} of {rounds}")
    return tallies


def schedule(peers: list[Peer], index: int) -> list[tuple[Peer, str]]:
    """(peer, partner's id) of one round; with an odd number one peer is idle."""
    matching = RandomPairs(RandomPairs.Config())
    roster = [peer.id for peer in peers]
    partners = ((p, matching.partner(p.id, roster, index, SCHEDULE_SEED)) for p in peers)
    return [(peer, partner) for peer, partner in partners if partner is not None]


def meet(way: str, pairs: list[tuple[Peer, str]]) -> tuple[float, list[Met]]:
    began = time.perf_counter()
    for peer, partner in pairs:
        peer.pipe.send(Meet(way, partner))
    answers = [peer.answer() for peer, _ in pairs]
    return time.perf_counter() - began, answers


def measure_memory(peers: list[Peer], case: Case) -> dict[str, Any]:
    """Two peers meet again and again, raw; what the first one and its daemon hold."""
    pair = [(peers[0], peers[1].id), (peers[1], peers[0].id)]
    for _ in range(MEMORY_WARM_UP):
        meet("raw", pair)
    before = ask(peers[0], "memory")
    answers = [met for _ in range(case.memory_exchanges) for met in meet("raw", pair)[1]]
    after = ask(peers[0], "memory")
    say("memory is measured")
    return {
        "exchanges": sum(met.ok for met in answers) // 2,
        "before": before,
        "after": after,
        "growth": {name: after[name] - before[name] for name in before},
    }


def cpu_so_far(peers: list[Peer]) -> Counter[str]:
    """Of all peers and their daemons."""
    return sum((Counter(ask(peer, "cpu")) for peer in peers), Counter[str]())


def ask(peer: Peer, what: str) -> dict[str, Any]:
    """A figure of the peer and of its daemon."""
    peer.pipe.send(what)
    answer: dict[str, Any] = peer.answer()
    return answer


def hivemind_row(context: Any, case: Case, rounds: int, floor: float) -> Row:
    setting = averaging_hivemind.Setting()
    ours, theirs = context.Pipe()
    paired = case.peers // 2 * 2  # an odd one would only wait for its deadline
    arguments = (theirs, paired, rounds, case.parameters, setting)
    process = context.Process(target=averaging_hivemind.main, args=arguments)
    process.start()
    theirs.close()
    result: averaging_hivemind.HivemindResult = ours.recv()
    process.join()
    say("hivemind is measured")
    median = statistics.median(result.seconds)
    return Row(
        name="hivemind",
        seconds_median=median,
        seconds_worst=max(result.seconds),
        success=result.success,
        bytes_per_peer=result.bytes_per_peer,
        cpu_seconds=result.cpu_seconds,
        ratio=median / floor,
    )


def report(
    case: Case, rows: list[Row], tallies: dict[str, Tally], memory: dict[str, Any], *, as_json: bool
) -> dict[str, Any]:
    by_name = {row.name: row for row in rows}
    raw, int8 = by_name["raw"].ratio, by_name["int8"].ratio
    figures = {"raw / floor": raw, "int8 / raw": int8 / raw}
    if "hivemind" in by_name:
        figures["hivemind / raw"] = by_name["hivemind"].ratio / raw
    spent = {way: {k: v / len(t.seconds) for k, v in t.cpu.items()} for way, t in tallies.items()}
    if not as_json:
        print(f"\n{case.peers} peers, {case.parameters / 1e6:g} M parameters")
        print(render(rows))
        for name, figure in figures.items():
            bar = f" (bar {BARS[name]})" if name in BARS else ""
            print(f"{name:16} {figure:.2f}{bar}")
        for way in ("floor raw", "raw", "int8"):
            parts = ", ".join(f"{who} {seconds:.3f}" for who, seconds in spent[way].items())
            print(f"cpu s/round of {way}: {parts}")
        grown = ", ".join(f"{name} {n / 1e6:+.1f} MB" for name, n in memory["growth"].items())
        print(f"memory over {memory['exchanges']} exchanges: {grown}", flush=True)
    return {
        "peers": case.peers,
        "parameters": case.parameters,
        "rounds": len(tallies["raw"].seconds),
        "rows": {row.name: row.as_dict() for row in rows},
        "ratios": figures,
        "cpu_seconds": spent,
        "memory": memory,
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
