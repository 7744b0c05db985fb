"""A joiner's first state over real daemons: from several donors, lost ones, liars, busy ones."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import nodes

from peers.give import TOPIC, Giver, Terms
from peers.halfway import Halfway, Keep
from peers.portrait import Easel, Portrait
from peers.take import Wish, take_state, take_step
from swarmnet.config import PeerConfig
from swarmnet.errors import NotKept, PayloadError, UnreachableError
from swarmnet.events import DonorLeft, StateAwaited
from swarmnet.net.pacing import Pace
from swarmnet.net.transfer import Blob, give
from swarmnet.pipeline.past import Commit, Past
from swarmnet.pipeline.steplog import Logged
from swarmnet.train.parcel import Parcel
from swarmnet.wire.messages import Get
from tests.swarm.herd import Herd

NUMEL = 800_000
NAMES = ("theta", "outer.phi", "inner.exp_avg")
TERMS = Terms.of(PeerConfig())
PATIENCE_S = 15.0


def state(seed: int) -> dict[str, torch.Tensor]:
    """Three vectors and a scalar; a few chunks."""
    source = torch.Generator().manual_seed(seed)
    vectors = {name: torch.randn(NUMEL, generator=source) for name in NAMES}
    return vectors | {"inner.step": torch.tensor(float(seed))}


def empty() -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state(0).items()}


class Donor:
    """A peer that gives ``tensors`` from ``step`` on request, and paints at once when asked to."""

    def __init__(self, tensors, step: int = 10, state: str = "serving", terms: Terms = TERMS):
        self.tensors, self.step, self.state = tensors, step, state
        self.easel = Easel()
        self.served = []
        self.giver = Giver(b"run", self.easel, lambda: self.state, terms, self.served.append)

    def portrait(self) -> Portrait:
        facts = {"step": self.step, "tokens": 5, "elapsed_s": 1.5, "met": True}
        return Portrait({name: tensor.clone() for name, tensor in self.tensors.items()}, facts)

    async def paint(self) -> None:
        while True:
            self.easel.paint(self.portrait)
            await asyncio.sleep(0.01)

    @property
    def handle(self):
        return self.giver.handle


def paced(donor: Donor, bytes_per_s: float = 4e6) -> Donor:
    """It trains, hence it does not give all at once to the first who asks."""
    donor.state = "training"
    donor.giver = Giver(
        b"run",
        donor.easel,
        lambda: donor.state,
        replace(TERMS, pace=Pace(bytes_per_s)),
        donor.served.append,
    )
    return donor


@asynccontextmanager
async def donors(folder: Path, *givers):
    """Each giver on a node of its own; yields the joiner's node and the donors' peer ids."""
    async with nodes(folder, len(givers) + 1) as (joiner, *others):
        painters = []
        for node, giver in zip(others, givers, strict=True):
            await node.serve(TOPIC, giver.handle)
            if isinstance(giver, Donor):
                painters.append(asyncio.create_task(giver.paint()))
        try:
            yield joiner, [node.me for node in others]
        finally:
            for task in painters:
                task.cancel()


def join(folder: Path, givers, into, wish=None, when=None):
    """What a joiner takes from ``givers``, its events, and the donors' ids."""

    async def main():
        said = []
        async with donors(folder, *givers) as (node, ids):
            wished = replace(wish or Wish(list, PATIENCE_S), donors=lambda: ids)
            if when is not None:
                await when(node, ids)
            return await take_state(node, into, wished, said.append), said, ids

    return asyncio.run(main())


def test_replicas_that_differ_give_whole_columns_each(tmp_path):
    givers = [paced(Donor(state(1), step=10)), paced(Donor(state(2), step=11))]
    into = empty()
    taken, _, ids = join(tmp_path, givers, into)
    assert set(taken.donors) == set(ids)
    assert taken.donors[0] == ids[1]
    assert taken.portrait.facts["step"] == 11
    assert into["inner.step"] == 2
    mixed, own = Parcel(into), [Parcel(giver.tensors) for giver in givers]
    hashes = [parcel.hashes(0, parcel.chunks) for parcel in own]
    drawn = [pair.index(h) for h, *pair in zip(mixed.hashes(0, mixed.chunks), *hashes, strict=True)]
    assert set(drawn) == {0, 1}
    assert taken.nbytes >= mixed.nbytes


def test_peers_that_are_alike_give_one_state_bit_for_bit(tmp_path):
    givers = [paced(Donor(state(1))), paced(Donor(state(1)))]
    into = empty()
    taken, _, ids = join(tmp_path, givers, into, Wish(list, PATIENCE_S, alike=True))
    assert set(taken.donors) == set(ids)
    assert all(torch.equal(into[name], tensor) for name, tensor in state(1).items())


def test_only_what_differs_is_sent_to_who_holds_an_older_state(tmp_path):
    theirs = state(1)
    theirs["outer.phi"][3] += 1
    into = state(1)
    taken, _, _ = join(tmp_path, [Donor(theirs)], into)
    assert taken.nbytes == Parcel(into).size(0)
    assert all(torch.equal(into[name], tensor) for name, tensor in theirs.items())


def test_a_joiner_that_is_started_anew_goes_on_where_it_was(tmp_path):
    keep = Keep(tmp_path / "joining", "run", 10.0, 60.0)
    wish = Wish(list, PATIENCE_S, keep=keep)

    async def ended(giver):
        some = asyncio.Event()

        def hear(event):
            if isinstance(event, StateAwaited) and event.left < event.chunks - 1:
                some.set()

        async with donors(tmp_path, giver) as (node, ids):
            wished = replace(wish, donors=lambda: ids)
            taking = asyncio.create_task(take_state(node, empty(), wished, hear))
            await some.wait()
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    asyncio.run(ended(paced(Donor(state(1), step=10), 2e6)))
    had = len(Halfway(keep, Parcel(empty())).had)
    into = empty()
    taken, _, _ = join(tmp_path, [Donor(state(2), step=11)], into, wish)
    whole, first = Parcel(into), Parcel(state(1))
    pairs = zip(whole.hashes(0, whole.chunks), first.hashes(0, first.chunks), strict=True)
    assert 0 < sum(mine == theirs for mine, theirs in pairs) == had < whole.chunks
    assert taken.nbytes <= whole.nbytes - (had - 1) * whole.size(0)
    assert taken.portrait.facts["step"] == 11


def logged(mean: torch.Tensor) -> Logged:
    return Logged.of(Commit.of(Past(), {"a": 60}, {"a": (1, 2)}, "a 1"), mean)


def test_a_mates_step_arrives_as_it_was_taken_and_one_that_is_not_kept_is_none(tmp_path):
    mean = state(1)["theta"]
    bad = torch.full((NUMEL,), float("nan"))
    kept = {1: logged(mean), 2: logged(bad), 3: logged(mean[1:])}
    donor = paced(Donor(state(1)), bytes_per_s=1.0)
    donor.giver.steps.logged = kept.get

    async def main():
        async with donors(tmp_path, donor) as (node, [peer]):
            came = await take_step(node, peer, 1, NUMEL)
            assert torch.equal(came.mean, mean)
            assert came.after(Past()) == kept[1].after(Past())
            for step, error in ((9, NotKept), (2, PayloadError), (3, PayloadError)):
                with pytest.raises(error):
                    await take_step(node, peer, step, NUMEL)

    asyncio.run(main())
    assert donor.served[0].step == 1


class Liar:
    """Promises the hashes of one state and sends the bytes of another."""

    def __init__(self, promised, sent):
        self.promised, self.sent = Parcel(promised), Parcel(sent)
        facts = Donor(promised, step=99).portrait().facts
        self.describes = {"index": self.promised.index, "scalars": self.promised.scalars(), **facts}
        self.hashes = self.promised.hashes(0, self.promised.chunks)
        self.nbytes = self.promised.nbytes
        self.buffer = self.sent.buffer()

    def chunk(self, index):
        return self.sent.column(index, self.buffer)

    async def handle(self, stream):
        Get.parse(await stream.receive(5.0))
        await give(stream, self, 5.0)


def broken() -> dict[str, torch.Tensor]:
    tensors = state(7)
    tensors["theta"][5] = float("nan")
    return tensors


def foreign() -> dict[str, torch.Tensor]:
    return {name.replace("phi", "psi"): tensor for name, tensor in state(7).items()}


@pytest.mark.parametrize(
    ("liar", "reason"),
    [
        (lambda: Liar(state(7), state(8)), "does not match its hash"),
        (lambda: Liar(broken(), broken()), "not finite"),
        (lambda: Liar(foreign(), foreign()), "another model"),
        (lambda: Liar(state(7) | {"inner.step": torch.tensor(torch.inf)}, state(7)), "scalars"),
    ],
    ids=["other-bytes", "nan", "other-names", "infinite-step"],
)
def test_a_donor_that_sends_what_it_must_not_is_banned_and_another_used(tmp_path, liar, reason):
    into = empty()
    taken, said, ids = join(tmp_path, [liar(), Donor(state(1), step=98)], into)
    [left] = [event for event in said if isinstance(event, DonorLeft)]
    assert left.banned
    assert reason in left.reason
    assert left.donor == ids[0]
    assert taken.donors == (ids[1],)
    assert all(torch.equal(into[name], tensor) for name, tensor in state(1).items())


def test_a_blob_that_is_no_state_is_refused_by_its_size(tmp_path):
    class Small:
        async def handle(self, stream):
            Get.parse(await stream.receive(5.0))
            await give(stream, Blob(b"small"), 5.0)

    with pytest.raises(UnreachableError, match="another size"):
        join(tmp_path, [Small()], empty(), Wish(list, 2.0, waits=False))


def test_while_all_donors_are_busy_the_joiner_says_so_and_then_gets_its_state(tmp_path):
    busy = Donor(state(1), terms=replace(TERMS, takers=1))
    held = []

    async def occupy(node, ids):
        stream = await node.open(ids[0], TOPIC, 5.0)
        await stream.send(Get(what="state").frame(), 5.0)
        await stream.receive(5.0)
        held.append(asyncio.create_task(leave_later(stream)))

    async def leave_later(stream):
        await asyncio.sleep(2.5)
        await stream.close()

    into = empty()
    _, said, _ = join(tmp_path, [busy], into, when=occupy)
    waits = [event for event in said if isinstance(event, StateAwaited)]
    assert waits
    assert "is busy" in waits[0].reason
    assert waits[0].left == waits[0].chunks
    assert not [event for event in said if isinstance(event, DonorLeft)]
    assert torch.equal(into["theta"], state(1)["theta"])


def test_nobody_waits_for_ever_for_donors_that_stay_busy_or_are_not_healed(tmp_path):
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"nobody gives .*: .* is syncing") as told:
        join(tmp_path, [Donor(state(1), state="syncing")], empty(), Wish(list, 2.0))
    assert told.value.exit_code == 3
    assert time.monotonic() - began >= 2.0


def test_what_came_before_a_donor_was_lost_is_not_asked_for_again(tmp_path):
    class Leaver(Liar):
        async def handle(self, stream):
            Get.parse(await stream.receive(5.0))
            await give_two_and_leave(stream, self)

    async def give_two_and_leave(stream, goods):
        left = iter(range(2))

        async def pause(nbytes):
            if next(left, None) is None:
                await stream.close()

        await give(stream, goods, 5.0, pause)

    into, full = empty(), state(1)
    taken, said, _ = join(tmp_path, [Leaver(full, full)], into)
    assert all(torch.equal(into[name], tensor) for name, tensor in full.items() if tensor.ndim)
    assert len([event for event in said if isinstance(event, DonorLeft)]) >= 2
    assert taken.nbytes == Parcel(full).nbytes


def test_a_donor_that_trains_gives_no_faster_than_its_share(tmp_path):
    began = time.monotonic()
    join(tmp_path, [paced(Donor(state(1)))], empty())
    assert time.monotonic() - began > Parcel(empty()).nbytes / 4e6 - 0.5


def test_one_copy_serves_all_who_come_while_it_is_fresh(tmp_path):
    painted = []
    donor = Donor(state(1))
    portrait, donor.portrait = donor.portrait, lambda: painted.append(1) or portrait()

    async def main():
        async with donors(tmp_path, donor) as (node, ids):
            wish = Wish(lambda: ids, PATIENCE_S)
            await asyncio.gather(*(take_state(node, empty(), wish, print) for _ in range(2)))

    asyncio.run(main())
    assert painted == [1]


ENDLESS = "target.tokens=1000000000"
LARGER = (
    ENDLESS,
    "model.config.hidden_size=160",
    "model.config.intermediate_size=512",
    "model.config.num_hidden_layers=2",
)
SLOW_GIVER = {"give_share": 0.002}


def test_a_donor_killed_midway_is_replaced_by_the_other(tmp_path: Path) -> None:
    with Herd(tmp_path, *LARGER) as herd:
        victim = herd.worker("a", **SLOW_GIVER)
        herd.worker("b", **SLOW_GIVER)
        herd.wait_met("a", "b")
        herd.worker("c")
        herd.wait(lambda: half_way(herd, "c"), "half of a state from two donors")
        victim.kill()
        herd.wait(lambda: herd.of("c", "state_taken"), "state")
        [taken] = herd.of("c", "state_taken")
        assert taken["source"] == "donor"
        herd.wait_met("c", times=2)


def half_way(herd: Herd, joiner: str) -> bool:
    words = herd.of(joiner, "state_awaited")
    return bool(words) and words[-1]["donors"] == 2 and words[-1]["left"] < words[-1]["chunks"]


def test_the_only_other_peer_alive_is_not_healed_yet(tmp_path: Path) -> None:
    """Nobody who waits for a state gives one, and the run has begun: nobody may begin it anew."""
    with Herd(tmp_path, ENDLESS) as herd:
        first = herd.worker("a")
        herd.wait(lambda: herd.of("a", "checkpoint"), "checkpoint")
        first.kill()
        first.join(5.0)
        herd.worker("b")
        herd.wait(lambda: herd.of("b", "state_awaited"), "word of the one that waits")
        herd.worker("c")
        herd.wait(lambda: herd.of("c", "state_awaited"), "word of the second one")
        assert not herd.of("b", "state_taken") + herd.of("c", "state_taken")
        herd.worker("a")
        herd.wait(lambda: all(herd.of(p, "state_taken") for p in "bc"), "states")
        taken = [e for p in "bc" for e in herd.of(p, "state_taken")]
        assert [e["source"] for e in taken] == ["donor", "donor"]
        healed = {e["peer_id"] for p in "abc" for e in herd.of(p, "peer_started")}
        assert {e["donor"] for e in taken} <= healed
        assert all(e["step"] > 0 for e in taken)
        herd.wait_met("a", "b", "c")
