"""How evenly a swarm under churn reads a text: shared blocks beside windows drawn at random.

Peers of different speeds come, leave and die at seeded moments; each sees the others as often as a
phone book is renewed, and who died only after three renewals. No network, no model: virtual time.

    python tests/bench/reading.py --peers 16 --minutes 60 --json
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections import Counter
from dataclasses import dataclass, field

from peers.reading import furthest
from swarmnet.config import Choice
from swarmnet.sharing import Ground, Position, Sharing, Span

LENGTH = 128
SEQUENCES = 8
STEP_S = 0.25
RENEW_S = 10.0
RENEWALS_UNTIL_DEAD = 3
AWAY_S = 60.0


@dataclass
class Reader:
    """One peer and how it reads. ``step_s``: of a batch."""

    name: str
    step_s: float
    sharing: Sharing
    told: Span = field(default_factory=Span)
    alive: bool = True
    until: float = float("inf")
    """When the others will have noticed that it is gone."""
    kept: Position = field(default_factory=dict)


class Swarm:
    """Readers in virtual time. ``life_s``: mean time until one is killed; 0: nobody is."""

    def __init__(self, sharing: str, args: argparse.Namespace) -> None:
        self._choice = Choice(name=sharing)
        self._args = args
        self._chance = random.Random(args.seed)
        self._now = 0.0
        self._readers: dict[str, Reader] = {}
        self._due: list[tuple[float, int, str, str]] = []
        self._count = 0
        self._blocks = 0
        self.reads: Counter[int] = Counter()
        """How often each window's first token was read, by window."""
        self.epochs: dict[int, Counter[int]] = {}

    def run(self) -> None:
        for index in range(self._args.peers):
            self._enter(f"peer-{index}")
        self._at(0.0, "renew", "")
        while self._due and self._due[0][0] < 60 * self._args.minutes:
            self._now, _, what, name = heapq.heappop(self._due)
            getattr(self, f"_{what}")(name)

    def _at(self, when: float, what: str, name: str) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, what, name))

    def _enter(self, name: str) -> None:
        ground = Ground(self._args.tokens, LENGTH, self._args.seed, name)
        step_s = STEP_S * self._args.spread ** self._chance.random()
        reader = Reader(name, step_s, self._choice.build("sharing", ground))
        self._begin(reader)

    def _begin(self, reader: Reader) -> None:
        """Whoever comes, or comes back, begins where those that it sees have come to."""
        reader.sharing.catch_up(furthest(self._view(reader.name)))
        reader.alive, reader.until, reader.told = True, float("inf"), reader.sharing.span
        self._readers[reader.name] = reader
        self._at(self._now + reader.step_s, "step", reader.name)
        if self._args.life_s:
            life_s = self._chance.expovariate(1 / self._args.life_s)
            self._at(self._now + life_s, "die", reader.name)

    def _view(self, me: str) -> dict[str, Span]:
        others = self._readers.items()
        return {name: o.told for name, o in others if name != me and self._now < o.until}

    def _step(self, name: str) -> None:
        reader = self._readers[name]
        if not reader.alive:
            return
        for start in reader.sharing.next(SEQUENCES, self._view(name)).tolist():
            self.reads[start // LENGTH] += 1
        for read in reader.sharing.finished():
            self._blocks = read.of
            self.epochs.setdefault(read.epoch, Counter())[read.block] += 1
        self._at(self._now + reader.step_s, "step", name)

    def _renew(self, _: str) -> None:
        for reader in self._readers.values():
            if reader.alive:
                reader.told, reader.kept = reader.sharing.span, reader.sharing.position()
        self._at(self._now + RENEW_S, "renew", "")

    def _die(self, name: str) -> None:
        """One in three leaves in good order; half of all come back, the others are replaced."""
        reader = self._readers[name]
        reader.alive = False
        if self._chance.random() < 1 / 3:
            reader.told, reader.kept, reader.until = *_last(reader), self._now
        else:
            reader.until = self._now + RENEWALS_UNTIL_DEAD * RENEW_S
        what = "return" if self._chance.random() < 0.5 else "replace"
        self._at(self._now + AWAY_S, what, name)

    def _return(self, name: str) -> None:
        reader = self._readers[name]
        if reader.kept:
            reader.sharing.resume(reader.kept)
        self._begin(reader)

    def _replace(self, name: str) -> None:
        del self._readers[name]
        self._enter(f"{name}+")

    def figures(self) -> dict[str, float]:
        """Over whole epochs of the text's size, so that all sharings are measured alike."""
        windows = self._args.tokens // LENGTH
        total = self.reads.total()
        counts = [self.reads[window] for window in range(windows)]
        mean = total / windows
        made = {
            "epochs": mean,
            "read_by_anybody": sum(count > 0 for count in counts) / windows,
            "spread": (sum((count - mean) ** 2 for count in counts) / windows) ** 0.5,
        }
        if self.epochs:
            reads = sum(times.total() for times in self.epochs.values())
            distinct = sum(map(len, self.epochs.values()))
            made |= {"duplication": 1 - distinct / reads}
            made |= {"coverage_first": len(self.epochs[0]) / self._blocks}
        return made


def _last(reader: Reader) -> tuple[Span, Position]:
    return reader.sharing.span, reader.sharing.position()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--tokens", type=int, default=40_000_000)
    parser.add_argument("--spread", type=float, default=3.0, help="slowest over fastest peer")
    parser.add_argument("--life-s", type=float, default=300.0, help="mean; 0: nobody dies")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = {}
    for name in ("rendezvous", "independent"):
        swarm = Swarm(name, args)
        swarm.run()
        rows[name] = swarm.figures()
        if not args.json:
            print(name, " ".join(f"{key} {value:.4f}" for key, value in rows[name].items()))
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
