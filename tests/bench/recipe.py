"""What a learning recipe is worth: a swarm's workers stepped in turn inside one process.

The replicas, codecs, outer rules and matchings are those of real peers; missing are the network
and its clock. A meeting's result is applied one step after its snapshot, as it is when it travels
beside that step, and a share of the meetings comes to nothing. Losses stand in for those of a live
run without a kill or a join, and a sweep needs no idle machine. ``--workers 1`` trains alone.

    python tests/bench/recipe.py --set inner.lr=3e-3 --set cadence.h=5 --json
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from peers.solo import HELD_OUT_TOKENS, train_alone
from swarmnet.cadence import Window
from swarmnet.config import RunConfig, RunFile
from swarmnet.data import Batches, Corpus
from swarmnet.train.blend import Frozen
from swarmnet.train.evaluate import held_out_loss
from swarmnet.train.loop import Trainer
from swarmnet.train.replica import Replica

DEMO = Path(__file__).parents[2] / "configs" / "runs" / "demo.toml"


@dataclass(frozen=True)
class Outcome:
    """Held-out losses in nats per token; disagreement as root mean square over parameters."""

    merged: float
    one_replica: float
    disagreement: float
    met: int
    lost: int


class Workers:
    """A swarm in lockstep. Between two steps each worker may hold one result that is under way."""

    def __init__(self, run: RunConfig, corpus: Corpus, n: int, lost_share: float) -> None:
        self._run = run
        self._corpus = corpus
        self._lost_share = lost_share
        self._chance = random.Random(run.seed)
        self._matching = run.matching.build("matching")
        self._cadence = run.cadence.build("cadence")
        builder = run.model.build("model", {})
        self.replicas = {
            f"worker-{i}": Replica(builder.build(run.seed), run, run.seed * n + i) for i in range(n)
        }
        self._trainers = {
            name: Trainer(run, replica, Batches(corpus.train, run, name))
            for name, replica in self.replicas.items()
        }
        self._under_way: list[Callable[[], None]] = []
        self.met = self.lost = 0

    def train(self, steps: int) -> None:
        since = 0
        for step in range(steps):
            view = {name: own.batches.sharing.span for name, own in self._trainers.items()}
            for trainer in self._trainers.values():
                trainer.step(step / steps, view)
            self._arrive()
            since += 1
            if self._cadence.ready(Window(since, step + 1, step / steps)):
                self._meet(step)
                since = 0
        self._arrive()

    def outcome(self) -> Outcome:
        """Evaluates, and leaves the mean in the first replica."""
        thetas = torch.stack([replica.theta for replica in self.replicas.values()])
        mean = thetas.mean(dim=0)
        first = next(iter(self.replicas.values()))
        alone = self._loss(first)
        first.theta.copy_(mean)
        spread = float((thetas - mean).square().mean().sqrt())
        return Outcome(self._loss(first), alone, spread, self.met, self.lost)

    def _meet(self, index: int) -> None:
        """Snapshots of all; what follows from them arrives after the next step."""
        sent = {name: replica.capture() for name, replica in self.replicas.items()}
        for me in self.replicas:
            partner = self._matching.partner(me, list(self.replicas), index, self._run.seed)
            if partner is None:
                self._alone(me, sent[me])
            elif me < partner and self._chance.random() < self._lost_share:
                self.lost += 1
                self._alone(me, sent[me])
                self._alone(partner, sent[partner])
            elif me < partner:
                self.met += 1
                self._exchange(me, partner, sent)

    def _alone(self, me: str, snapshot: Frozen) -> None:
        replica = self.replicas[me]
        if replica.steps_alone:
            self._under_way.append(partial(replica.apply_solo, snapshot))

    def _exchange(self, me: str, partner: str, sent: dict[str, Frozen]) -> None:
        """In lockstep everybody has worked alike."""
        works = {me: 1, partner: 1}
        for own, other in ((me, partner), (partner, me)):
            replica, theirs = self.replicas[own], self.replicas[other]
            blend = replica.blend(sent[own], own, works)
            for part in range(replica.parts):
                payload = memoryview(bytearray(theirs.encode(sent[other], part)))
                blend.take(part, {other: payload})
            self._under_way.append(partial(replica.apply_met, sent[own], blend.finish().vector))

    def _arrive(self) -> None:
        for apply in self._under_way:
            apply()
        self._under_way.clear()

    def _loss(self, replica: Replica) -> float:
        ids, batch = self._corpus.held_out, self._run.batch
        return held_out_loss(replica.module, ids, batch, HELD_OUT_TOKENS)[0]


def measure(run: RunConfig, corpus: Corpus, args: argparse.Namespace) -> dict[str, object]:
    """One row of a sweep."""
    if args.workers == 1:
        lr = run.inner.config("inner").lr
        return asdict(train_alone(run, corpus, args.steps, lr, run.seed, torch.device("cpu")))
    workers = Workers(run, corpus, args.workers, args.lost)
    workers.train(args.steps)
    return asdict(workers.outcome())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=DEMO, help="run file")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=450, help="of each worker")
    parser.add_argument("--lost", type=float, default=0.25, help="share of meetings that fail")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    run = RunFile.load(args.run, args.set).config
    corpus = run.data.build("data", run.model.build("model", {}).tokenizer(), {})
    row = measure(run, corpus, args)
    print(json.dumps(row) if args.json else "\n".join(f"{k:<14}{v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
