"""Kills -9 at random moments of checkpointing and exchange: is a state torn, or a meeting half?

Light peers, forked from one parent, step, meet over Unix sockets with a worker's own machines, and
write a checkpoint every 30 ms. Links take some milliseconds, and break where questions
arise and where they are asked. One after the other is killed and started again from its folder.
At the end all answer each other's questions, and every meeting is looked for in both books.

A meeting may be in one book only if the other peer was killed after it took part and before its
next checkpoint, or gave the question up: that is what docs/failures.md says a kill costs. Anything
else is a violation, told on stderr, and so is a checkpoint that cannot be read. ``shift`` is how
far these halves moved the mean, per coordinate and peer, beside the size of one step (1).

    python tests/bench/kills.py --kills 1000 --json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kills_peer import CALM, DONE, JOURNAL, ROUNDS_EACH, SETTLED, STOP, Place, live

from peers.keeper import FOLDER
from swarmnet.train import checkpoint

BETWEEN_S = 0.04
"""Mean time from one kill to the next."""
DEADLINE_S = 60.0
LAW = 1e-9
LIFE_BITS = 24
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Figures:
    """``lost``: meetings that are in one book only, as documented. ``asked_again``:
    questions that a checkpoint brought back; ``applied_again``: those whose answer was yes;
    ``given_up``: questions that newer ones pushed out, or that were asked for too long."""

    peers: int
    kills: int
    while_writing: int
    seconds: float
    meetings: int
    unreadable: int
    refused: int
    asked_again: int
    applied_again: int
    lost: int
    given_up: int
    violations: int
    shift: float

    def sound(self) -> bool:
        return self.unreadable == self.violations == self.refused == 0


class Lab:
    """All peers, and who of them is in which life."""

    def __init__(self, root: Path, peers: int, seed: int) -> None:
        self.names = tuple(f"peerNumber{number + 1}" for number in range(peers))
        self.while_writing = 0
        self._root = root
        self._random = random.Random(seed)
        self._lives = [0] * peers
        self._processes: list[BaseProcess] = []
        (root / "sockets").mkdir(parents=True)
        for index, name in enumerate(self.names):
            (root / name).mkdir()
            self._processes.append(self._start(index))

    def storm(self, kills: int) -> None:
        for _ in range(kills):
            time.sleep(self._random.expovariate(1 / BETWEEN_S))
            index = self._random.randrange(len(self.names))
            process = self._processes[index]
            if not process.is_alive():
                raise RuntimeError(f"{self.names[index]} ended by itself: {process.exitcode}")
            process.kill()
            process.join()
            folder = self._root / self.names[index] / FOLDER
            self.while_writing += any(folder.glob(".*"))
            self._processes[index] = self._start(index)

    def end(self) -> None:
        """Open questions are answered, then meetings end, then everybody writes what it has."""
        for word, marker in ((CALM, SETTLED), (STOP, DONE)):
            (self._root / word).touch()
            paths = [self._root / name / marker for name in self.names]
            self._wait(lambda paths=paths: all(path.exists() for path in paths), marker)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def _start(self, index: int) -> BaseProcess:
        self._lives[index] += 1
        place = Place(index, self.names, self._root, self._lives[index])
        process = FORK.Process(target=live, args=(place,), daemon=True)
        process.start()
        return process

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not everybody is {what}")
            time.sleep(0.05)


class Peer:
    """What one peer left behind: its journal and its last checkpoint."""

    def __init__(self, index: int, folder: Path) -> None:
        self.index, self.name = index, folder.name
        lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
        self.refused = sum("refused" in line for line in lines)
        self.begun = {line["life"]: line for line in lines if "life" in line}
        self.given_up: set[tuple[str, int]] = set()
        for line in lines:
            if "given_up" in line:
                self.given_up.add(tuple(line["given_up"]))
            # A kill before the next checkpoint brings the question back.
            self.given_up.difference_update(map(tuple, line.get("asked", ())))
        self.committed: dict[tuple[str, int], int] = {}
        """Each round that was decided here as applied, and in which life."""
        life = 0
        for line in lines:
            life = line.get("life", life)
            if "commit" in line:
                self.committed[tuple(line["commit"])] = life
        kept = checkpoint.read(folder / FOLDER)
        if kept is None:
            raise RuntimeError(f"{self.name} has no checkpoint at the end")
        self.tensors, self.facts = {n: t.numpy() for n, t in kept[0].items()}, kept[1]
        keys = [(partner, round_) for partner, round_ in self.facts["book"]]
        self.book = dict(zip(keys, self.tensors["moves"], strict=True))
        self.twice = len(keys) - len(self.book)

    @property
    def last_life(self) -> int:
        return max(self.begun)

    def unreadable(self) -> int:
        """Lives that found a torn checkpoint, or none where one had been read before."""
        torn = sum(line["passed_over"] for line in self.begun.values())
        steps = [line["step"] for _, line in sorted(self.begun.items())]
        lost = sum(b is None or (a or 0) > b for a, b in pairwise(steps) if a)
        return torn + lost

    @property
    def asked_again(self) -> set[tuple[str, int]]:
        return {(who, n) for line in self.begun.values() for who, n in line["asked"]}

    def explains_its_weights(self) -> bool:
        t = self.tensors
        rest = t["live"] - t["started"] - t["added"] - t["moves"].sum(axis=0)
        return bool(np.abs(rest).max() < LAW)

    def may_lack(self, partner: str, round_: int) -> bool:
        """Whether a kill between taking part and the next checkpoint explains that it is gone, or
        a question given up that it never came."""
        if (partner, round_) in self.given_up:
            return True
        life = round_ >> LIFE_BITS
        if (round_ % (1 << LIFE_BITS)) // ROUNDS_EACH == self.index:  # it was my offer
            asked_again = [partner, round_] in self.begun.get(life + 1, {}).get("asked", [])
        else:
            decided = self.committed.get((partner, round_))
            if decided is None:
                return False
            life, asked_again = decided, False
        return life < self.last_life and not asked_again


def judge(root: Path, lab: Lab, kills: int, seconds: float) -> Figures:
    peers = {name: Peer(i, root / name) for i, name in enumerate(lab.names)}
    halves = list(_halves(peers))
    unexplained = [half for half in halves if not peers[half[1]].may_lack(half[0], half[2][1])]
    for peer, other, key, _ in unexplained:
        print(f"{peer} met {key}, and {other} did not", file=sys.stderr)
    shift = np.sum([move for *_, move in halves], axis=0) / len(peers) if halves else 0.0
    return Figures(
        peers=len(peers),
        kills=kills,
        while_writing=lab.while_writing,
        seconds=seconds,
        meetings=sum(len(peer.book) for peer in peers.values()) // 2,
        unreadable=sum(peer.unreadable() for peer in peers.values()),
        refused=sum(peer.refused for peer in peers.values()),
        asked_again=sum(len(peer.asked_again) for peer in peers.values()),
        applied_again=sum(key in p.book for p in peers.values() for key in p.asked_again),
        lost=len(halves) - len(unexplained),
        given_up=sum(len(peer.given_up) for peer in peers.values()),
        violations=len(unexplained) + _broken(peers),
        shift=float(np.sqrt(np.mean(np.square(shift)))),
    )


def _halves(peers: dict[str, Peer]) -> Iterator[tuple[str, str, tuple[str, int], Any]]:
    """Meetings that are in one book only: who has it, who lacks it, which, and the move."""
    for name, peer in peers.items():
        for (partner, round_), move in peer.book.items():
            if (name, round_) not in peers[partner].book:
                yield name, partner, (partner, round_), move


def _broken(peers: dict[str, Peer]) -> int:
    """Books that do not explain the weights, meetings applied twice, corrections that differ."""
    count = 0
    for name, peer in peers.items():
        faults = peer.twice + (not peer.explains_its_weights())
        if faults:
            print(f"the book of {name} does not explain its weights", file=sys.stderr)
        count += faults
        for (partner, round_), move in peer.book.items():
            back = peers[partner].book.get((name, round_))
            count += back is not None and bool(np.abs(move + back).max() > LAW)
    return count


def run(kills: int, peers: int, seed: int) -> Figures:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        root = Path(folder)
        began = time.monotonic()
        lab = Lab(root, peers, seed)
        try:
            lab.storm(kills)
            seconds = time.monotonic() - began
            lab.end()
        finally:
            lab.close()
        return judge(root, lab, kills, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--peers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    figures = run(options.kills, options.peers, options.seed)
    if options.json:
        json.dump(asdict(figures), sys.stdout, indent=1)
        print()
    else:
        print("\n".join(f"{name:15}{value}" for name, value in asdict(figures).items()))
    return 0 if figures.sound() else 1


if __name__ == "__main__":
    sys.exit(main())
