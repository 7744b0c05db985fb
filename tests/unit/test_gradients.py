"""The arithmetic of a stage's meeting: one mean, the same bits at everybody."""

from types import SimpleNamespace

import pytest
import torch

from swarmnet.config import Choice
from swarmnet.errors import PayloadError
from swarmnet.exchange.group import Seating
from swarmnet.train.gradients import GradientCargo
from swarmnet.train.sums import Sums
from swarmnet.wire.frame import PART_BYTES

NUMEL = 3 * PART_BYTES // 4 + 77
CODECS = ("raw", "bf16", "int8")


def rules(codec="raw", **options):
    choice = Choice(name=codec, **options)
    reduce = Choice(name="mean").build("reduce")
    return SimpleNamespace(codec=choice.build("codec"), reduce=reduce)


def cargo_of(vector, rules_, seed):
    """As of a stage whose weights are like ``vector``."""
    replica = SimpleNamespace(theta=vector, rules=rules_, module=torch.nn.Identity())
    return GradientCargo(replica, 0, "", seed)


def company(n, numel, rules_, dtype=torch.float32, tokens=None):
    """Cargo and sums of each member; the last one brings nothing unless told otherwise."""
    generator = torch.Generator().manual_seed(n)
    members = {}
    for i in range(n):
        count = tokens[i] if tokens else (0 if i == n - 1 and n > 2 else 7 + 100 * i)
        vector = torch.randn(numel, generator=generator, dtype=dtype) * count
        members[f"peer{i}"] = cargo_of(vector, rules_, i), Sums(vector, count, ())
    return members


def meet(members):
    """The mean at each member, by way of the parts that a meeting would send."""
    works = {peer: sums.tokens for peer, (_, sums) in members.items()}
    parts = next(iter(members.values()))[0].parts
    seating = Seating(tuple(members), parts)
    blends = {p: cargo.blend(sums, p, works) for p, (cargo, sums) in members.items()}
    for part in range(parts):
        payloads = {p: memoryview(bytes(c.encode(sums, part))) for p, (c, sums) in members.items()}
        assert all(
            len(payload) == members[p][0].part_nbytes(part) for p, payload in payloads.items()
        )
        if seating.direct:
            for peer, blend in blends.items():
                blend.take(part, {p: payload for p, payload in payloads.items() if p != peer})
            continue
        [owner] = [peer for peer in members if part in seating.needs(peer)]
        others = {p: payload for p, payload in payloads.items() if p != owner}
        fused = bytes(blends[owner].fuse(part, others))
        for blend in blends.values():
            blend.adopt(part, memoryview(fused))
    return [blend.finish().vector for blend in blends.values()]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_all_members_form_the_same_bits(n, codec):
    members = company(n, NUMEL, rules(codec))
    means = meet(members)
    for mean in means[1:]:
        assert torch.equal(mean, means[0])
    total = sum(sums.tokens for _, sums in members.values())
    exact = sum(sums.vector.double() for _, sums in members.values()) / total
    bound = {"raw": 1e-6, "bf16": 0.05, "int8": 0.1}[codec]
    assert (means[0] - exact).abs().max() < bound


@pytest.mark.parametrize("n", [2, 3, 4, 6, 9])
def test_the_mean_is_that_of_all_tokens(n):
    members = company(n, 1000, rules("raw", double=True), torch.float64)
    total = sum(sums.tokens for _, sums in members.values())
    exact = sum(sums.vector for _, sums in members.values()) / total
    for mean in meet(members):
        assert (mean - exact).abs().max() < 1e-13


@pytest.mark.parametrize("codec", CODECS)
def test_a_peer_alone_steps_with_its_own_mean_exactly(codec):
    [(cargo, sums)] = company(1, NUMEL, rules(codec)).values()
    blend = cargo.blend(sums, "peer0", {"peer0": sums.tokens})
    for part in range(cargo.parts):
        blend.take(part, {})
    assert torch.equal(blend.finish().vector, sums.vector / sums.tokens)


def test_a_mean_with_a_part_missing_is_none():
    [(cargo, sums)] = company(1, NUMEL, rules()).values()
    blend = cargo.blend(sums, "peer0", {"peer0": sums.tokens})
    blend.take(0, {})
    with pytest.raises(RuntimeError, match="never formed"):
        blend.finish()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_are_refused_by_others_and_by_their_peer(value):
    members = company(2, 10, rules(), tokens=[3, 4])
    (one, sums), (other, theirs) = members.values()
    sums.vector[3] = value
    works = {"peer0": 3, "peer1": 4}
    with pytest.raises(PayloadError):
        other.blend(theirs, "peer1", works).take(0, {"peer0": one.encode(sums, 0)})
    with pytest.raises(PayloadError):
        one.blend(sums, "peer0", {"peer0": 3}).take(0, {})


def test_a_noisy_payload_is_the_same_at_every_asking_and_new_for_new_sums():
    [(cargo, sums)] = company(1, 1000, rules("int8")).values()
    assert bytes(cargo.encode(sums, 0)) == bytes(cargo.encode(sums, 0))
    again = Sums(sums.vector, sums.tokens, ())
    assert bytes(cargo.encode(sums, 0)) != bytes(cargo.encode(again, 0))


def test_the_sums_are_left_as_they_are():
    members = company(3, 100, rules())
    before = [sums.vector.clone() for _, sums in members.values()]
    meet(members)
    for kept, (_, sums) in zip(before, members.values(), strict=True):
        assert torch.equal(kept, sums.vector)
