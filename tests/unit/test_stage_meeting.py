"""The peers of a stage step together: exact means, the same bits, each sample once."""

import asyncio
import random
from dataclasses import replace

import numpy as np
import pytest

from swarmnet.sim import clock
from swarmnet.sim.network import Link
from swarmnet.wire import Kind
from tests.unit.groups import NAMES, Fault, strike
from tests.unit.stages import StageCompany, tokens_of

STORMS = 60
KINDS = ("cut", "sender dies", "receiver dies", "sender freezes", "receiver freezes")


def shares(n, each, start=100):
    return {i: range(start + i * each, start + (i + 1) * each) for i in range(n)}


def batch(given):
    return sum(tokens_of(sample) for samples in given.values() for sample in samples)


def stepped(n, given, **options):
    async def main():
        company = await StageCompany(n, batch(given), **options).open()
        company.send(given)
        await company.settle(30)
        company.judge()
        return company

    return clock.run(main())


# ---- nothing goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 9])
def test_all_peers_take_the_same_step_once(n):
    given = shares(n, 4)
    company = stepped(n, given)
    for peer in company.peers:
        assert [commit.past.step for commit, _ in peer.commits] == [1]
        assert peer.tokens == 0
        assert peer.samples == []
    assert company.counted() == sorted(company.sent)
    assert len({tuple(peer.commits[0][1].tobytes() for peer in company.peers)}) == 1


@pytest.mark.parametrize("split", [(1, 7), (4, 4), (8, 0)])
def test_how_samples_are_split_does_not_matter(split):
    samples = list(range(8))
    given = {0: samples[: split[0]], 1: samples[split[0] :]}
    mean = stepped(2, given).peers[0].commits[0][1]
    alone = stepped(1, {0: samples}).peers[0].commits[0][1]
    assert np.abs(mean - alone).max() < 1e-14


@pytest.mark.parametrize("n", [1, 2, 5])
def test_many_batches_make_as_many_steps(n):
    async def main():
        company = await StageCompany(n, 200).open()
        dice = random.Random(n)
        for sample in range(600):
            company.send({dice.randrange(n): [sample]})
            await asyncio.sleep(0.02)
        await company.settle(30)
        company.judge()
        steps = company.peers[0].stepping.assembly.past.step
        assert 6 <= steps <= batch({0: range(600)}) // 200
        await company.finish()
        company.judge()
        assert company.counted() == list(range(600))
        assert all(peer.resyncs == 0 for peer in company.peers)

    clock.run(main())


def test_no_step_before_the_batch_is_there_or_the_run_ends():
    async def main():
        company = await StageCompany(3, 10**6).open()
        company.send(shares(3, 2))
        await company.settle(30)
        assert all(peer.commits == [] for peer in company.peers)
        assert [len(peer.samples) for peer in company.peers] == [2, 2, 2]
        await company.finish()
        company.judge()
        assert company.counted() == sorted(company.sent)

    clock.run(main())


def test_a_stage_waits_for_the_others_and_loses_nothing():
    async def main():
        company = StageCompany(2, 10)
        for peer in company.peers:
            peer.stepping.assembly.place = replace(peer.stepping.assembly.place, stages=2)
        company.others[1] = 0
        await company.open()
        company.send(shares(2, 6))
        await company.settle(20)
        assert company.peers[0].stepping.assembly.past.step == 1
        company.send(shares(2, 6, start=500))
        await company.settle(20)
        assert company.peers[0].stepping.assembly.past.step == 1
        company.others[1] = 1
        await company.settle(20)
        company.judge()
        assert company.counted() == sorted(company.sent)

    clock.run(main())


# ---- samples that two peers hold ----------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 6])
def test_a_sample_that_two_hold_counts_once_and_the_rest_comes_again(n):
    given = shares(n, 4)
    given[1] = [given[0][0], *list(given[1])[:2]]
    company = stepped(n, given)
    [(commit, _)] = company.peers[0].commits
    assert len(commit.works) == n
    assert commit.works[NAMES[1]] == 0
    assert company.peers[1].resyncs == 0, "it adopts the step like the others"
    assert sorted(company.peers[1].gone) == sorted(list(given[1])[1:])


def test_sums_that_hold_a_committed_sample_are_dropped_and_their_others_told():
    async def main():
        company = await StageCompany(2, batch({0: range(4)})).open()
        company.send({0: range(4)})
        await asyncio.sleep(0.03)
        peer = company.peers[1]
        for sample in (2, 77):  # as if it had come before the commit was known
            peer.samples.append(sample)
            peer.tokens += tokens_of(sample)
        await company.settle(30)
        company.judge()
        assert company.counted() == [0, 1, 2, 3]
        assert peer.gone == [77]
        assert peer.tokens == 0

    clock.run(main())


# ---- faults -------------------------------------------------------------------------------------


def struck(monkeypatch, n, *faults, link=None):
    """One batch with these faults in its meeting, then all that was lost comes again."""

    async def main():
        given = shares(n, 3)
        company = await StageCompany(n, batch(given), link).open()
        with monkeypatch.context() as patch:
            strike(patch, company, *faults)
            company.send(given)
            await company.settle()
        if not company.alive:
            return company
        await company.finish()
        company.judge()
        assert company.counted() == sorted(company.sent), "a sample was lost"
        return company

    return clock.run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, pytest.param(5, marks=pytest.mark.long)])
def test_a_fault_at_the_frames_of_a_meeting(monkeypatch, n, kind):
    seen = set()
    for at in range(0, 400, 1 if n < 5 else 3):
        fault = Fault(at, kind)
        struck(monkeypatch, n, fault)
        if fault.seen is None:
            break
        seen.add(fault.seen)
    assert {Kind.CALL, Kind.JOIN, Kind.PART, Kind.GOT, Kind.DECIDE, Kind.HAVE, Kind.COMMIT} <= seen


def storm(monkeypatch, seed):
    dice = random.Random(seed)
    n = dice.choice([2, 3, 4, 5, 6, 9])
    frames = 5 * n * n + 20
    faults = [Fault(dice.randrange(frames), dice.choice(KINDS)) for _ in range(dice.randint(1, 4))]
    links = {}

    def link(a, b):
        return links.setdefault((a, b), Link(dice.uniform(0.001, 0.4), dice.uniform(2e3, 1e6)))

    return struck(monkeypatch, n, *faults, link=link)


@pytest.mark.parametrize("first", range(0, STORMS, 10))
def test_storms_of_faults(monkeypatch, first):
    for seed in range(first, first + 10):
        storm(monkeypatch, seed)


# ---- while samples keep coming ------------------------------------------------------------------


def traffic(monkeypatch, seed):
    """Many batches, samples that two peers got, and peers that die or stop at any moment."""
    dice = random.Random(seed)
    n = dice.choice([2, 3, 4, 5, 7])
    faults = [Fault(dice.randrange(60 * n), dice.choice(KINDS)) for _ in range(dice.randint(1, 3))]

    async def main():
        company = await StageCompany(n, 60).open()
        with monkeypatch.context() as patch:
            strike(patch, company, *faults)
            for sample in range(120):
                for _ in range(1 + (dice.random() < 0.03)):
                    company.send({dice.randrange(n): [sample]})
                await asyncio.sleep(dice.uniform(0, 0.2))
            await company.settle(60)
        if not company.alive:
            return
        await company.finish()
        company.judge()
        assert company.counted() == list(range(120))

    clock.run(main())


@pytest.mark.parametrize("first", range(0, STORMS, 10))
def test_storms_while_samples_keep_coming(monkeypatch, first):
    for seed in range(first, first + 10):
        traffic(monkeypatch, seed)


@pytest.mark.parametrize("apart", [1, 2])
def test_two_halves_that_stepped_apart_become_one_past(apart):
    async def main():
        company = await StageCompany(5, 50).open()
        company.send(shares(5, 3, start=0))
        await company.settle(20)
        company.part(NAMES[:apart])
        await asyncio.sleep(10)
        company.send({i: range(1000 + 20 * i, 1020 + 20 * i) for i in range(5)})
        await company.settle(30)
        steps = {peer.stepping.assembly.past.lineage for peer in company.peers}
        assert len(steps) == 2
        company.heal()
        await company.settle(60)
        await company.finish()
        company.judge()
        assert company.counted() == sorted(company.sent)
        assert sum(peer.resyncs for peer in company.peers) in (apart, 5 - apart)

    clock.run(main())
