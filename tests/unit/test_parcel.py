"""A state as columns: the same bytes again, checked, and a mixture that is as good as a replica."""

from __future__ import annotations

import pytest
import torch

from swarmnet.errors import PayloadError
from swarmnet.train.parcel import Parcel
from swarmnet.wire.frame import CHUNK_BYTES

SIZES = (1, 1023, 60_000, 400_001)


def state(numel, seed=0):
    source = torch.Generator().manual_seed(seed)
    vectors = {name: torch.randn(numel, generator=source) for name in ("theta", "phi", "m")}
    return vectors | {"step": torch.tensor(7.25)}


def empty(numel):
    return {name: torch.zeros_like(tensor) for name, tensor in state(numel).items()}


def copy(source, target, chunks):
    buffer = source.buffer()
    for chunk in chunks:
        target.place(chunk, memoryview(bytearray(source.column(chunk, buffer))))


@pytest.mark.parametrize("numel", SIZES)
def test_columns_are_the_whole_state_and_fit_into_chunks(numel):
    own, other = Parcel(state(numel)), Parcel(empty(numel))
    sizes = [own.size(chunk) for chunk in range(own.chunks)]
    assert sum(sizes) == own.nbytes == 12 * numel
    assert max(sizes) <= CHUNK_BYTES
    copy(own, other, range(own.chunks))
    other.take_scalars(own.scalars())
    assert own.index == other.index
    assert all(torch.equal(own.tensors[n], tensor) for n, tensor in other.tensors.items())
    assert own.hashes(0, 99) == other.hashes(0, 99)


def test_a_column_holds_the_same_parameters_of_every_vector():
    own, other = Parcel(state(400_001)), Parcel(empty(400_001))
    copy(own, other, [1])
    for name in ("theta", "phi", "m"):
        places = other.tensors[name].nonzero().flatten()
        assert (places.min(), places.max() + 1) == (87_040 - 0, 2 * 87_040)


def test_what_is_not_finite_or_of_another_size_is_refused_and_nothing_is_written():
    own = state(60_000)
    own["phi"][17] = float("inf")
    bad, target = Parcel(own), Parcel(empty(60_000))
    with pytest.raises(PayloadError, match="not finite"):
        copy(bad, target, [0])
    with pytest.raises(PayloadError, match="instead of"):
        target.place(0, memoryview(bytearray(8)))
    assert not target.tensors["theta"].any()


@pytest.mark.parametrize(
    "given",
    [None, [], {}, {"step": "x"}, {"step": [1.0, 2.0]}, {"step": [float("nan")]}, {"other": [1.0]}],
    ids=str,
)
def test_scalars_that_do_not_fit_are_the_donors_fault(given):
    with pytest.raises(PayloadError, match="scalars"):
        Parcel(empty(10)).take_scalars(given)


def test_a_mixture_is_as_far_from_the_mean_as_a_replica_is():
    """Distances of columns add up, so a mixture's lies between those of its donors."""
    common = state(400_001)["theta"]
    replicas = [
        {"theta": common + 0.1 * state(400_001, seed)["theta"], "phi": common, "m": common}
        for seed in (1, 2, 3)
    ]
    parcels = [Parcel(replica) for replica in replicas]
    mixed = Parcel({name: torch.zeros(400_001) for name in ("theta", "phi", "m")})
    for chunk in range(mixed.chunks):
        copy(parcels[chunk % 3], mixed, [chunk])
    far = [float((r["theta"] - common).square().mean()) for r in (*replicas, mixed.tensors)]
    assert min(far[:3]) <= far[3] <= max(far[:3])
