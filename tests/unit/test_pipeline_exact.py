"""A real model in a faulty pipeline, in float64: each step is the mean over exactly its samples.

These are laws B4.1 and B4.2: any routing, any number of peers and any kills change nothing.
"""

import asyncio
import random

import numpy as np
import pytest
import torch

from swarmnet.errors import PayloadError
from swarmnet.sim.clock import run
from swarmnet.train.stage import StageCore
from swarmnet.train.stageworks import StageWorks
from tests.unit.pipelines import LENGTH, ROWS, Pipeline
from tests.unit.stage_models import LLAMA, builder_of, stages_of
from tests.unit.stages import VectorCargo
from tests.unit.tiny_stage import Master, by_one_process

SIZES = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3}
BUILDER = {"architecture": "llama", "config": LLAMA | SIZES}
N = 60


class Doubles:
    """A boundary that loses nothing."""

    def features(self, width):
        return width

    def encode(self, values, generator):
        return memoryview(values.detach().numpy().tobytes())

    def decode(self, payload, out):
        if len(payload) != 8 * out.numel():
            raise PayloadError("another size")
        return torch.frombuffer(bytearray(payload), dtype=torch.float64).view(out.shape)


class Core(StageCore):
    """Remembers every mean gradient that it steps with."""

    def __init__(self, master):
        super().__init__(master)
        self.means = []

    def step(self, mean, lr):
        self.means.append(mean.copy())
        super().step(torch.from_numpy(mean), lr)


class Engine:
    """One peer's stage of a small llama."""

    def __init__(self, module, seed):
        self.master = Master(module)
        self.core = Core(self.master)
        self.works = StageWorks(self.core, module, Doubles(), seed)
        self.cargo = VectorCargo(self.master.theta.numel(), 512)
        self.largest = 8 * ROWS * LENGTH * module.width

    def state(self):
        return self.master.theta.numpy().tobytes()

    def load(self, state, version):
        theta = torch.frombuffer(bytearray(state), dtype=torch.float64)
        self.core.load({"theta": theta}, version)


class Llamas(Pipeline):
    def stages(self):
        modules = stages_of(builder_of(BUILDER), len(self.counts))
        return [module.double() for module in modules]

    def engine(self, stage):
        return Engine(self.stages()[stage], self.incarnations)

    def by_one_process(self, samples):
        """Each stage's gradient sum over these samples of the only trainer."""
        [traveller] = self.travellers
        number_of = {traveller.book.name(number): number for number in range(N)}
        loads = [self.load(number_of[sample]) for sample in samples]
        tokens = [torch.from_numpy(load.astype(np.int64)) for load in loads]
        return by_one_process(self.stages(), tokens)[1]


async def trained(counts, wiring, seed, rate, at_once=1):
    chance = random.Random(seed)
    target = 8 * ROWS * LENGTH
    cls = type("Batched", (Llamas,), {"at_once": at_once})
    pipeline = cls(counts, 1, seed, wiring=wiring, target=target, notice_s=2.0)
    pipeline.rate = rate
    await pipeline.start()
    pipeline.limit = N
    for _ in range(2):
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        stage = chance.choice([stage for stage, count in enumerate(counts) if count > 1])
        peers = [peer for peer in pipeline.of(stage) if peer.ready]
        if len(peers) > 1 and len({peer.past for peer in peers}) == 1:
            pipeline.crash(chance.choice(peers))
        await pipeline.add(chance.randrange(len(counts))).start()
    await pipeline.until(lambda: pipeline.given == N)
    await pipeline.flush()
    await asyncio.sleep(10.0)
    pipeline.judge()
    return pipeline


ROUTES = [((1, 2), "swarm"), ((3, 2), "round_robin"), ((2, 2, 2), "uniform")]


@pytest.mark.parametrize(("counts", "wiring"), ROUTES)
@pytest.mark.parametrize(("seed", "at_once"), [(0, 1), (1, 4)])
def test_every_mean_is_that_of_one_process_over_the_samples_of_its_step(
    counts, wiring, seed, at_once
):
    pipeline = run(trained(counts, wiring, seed, 0.0, at_once))
    seen = 0
    for peer in pipeline.peers.values():
        for step, mean in zip(peer.taken, peer.engine.core.means, strict=True):
            assert step.tokens == ROWS * LENGTH * len(step.ids)
            gradient = pipeline.by_one_process(step.ids)[peer.stage].numpy()
            assert np.abs(mean * step.tokens - gradient).max() < 1e-10
            seen += 1
    assert seen >= sum(counts)


@pytest.mark.parametrize(("counts", "wiring"), ROUTES)
def test_after_many_steps_all_peers_of_a_stage_have_the_same_bits(counts, wiring):
    pipeline = run(trained(counts, wiring, 7, rate=0.2))
    for stage, fresh in enumerate(pipeline.stages()):
        states = {peer.engine.state() for peer in pipeline.of(stage)}
        assert len(states) == 1, "judged before, and said here"
        assert states != {Master(fresh).theta.numpy().tobytes()}, "it has moved"
