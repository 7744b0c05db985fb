"""Where a model is cut: the dearest stage is as cheap as can be, and every peer cuts alike."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from swarmnet.errors import ModelError
from swarmnet.model._cut import cut


def every_cut(blocks: int, stages: int) -> list[list[range]]:
    inner = combinations(range(1, blocks), stages - 1)
    return [
        [range(*pair) for pair in zip((0, *ends), (*ends, blocks), strict=True)] for ends in inner
    ]


def sums(costs: list[int], parts: list[range]) -> list[int]:
    return [sum(costs[i] for i in part) for part in parts]


@pytest.mark.parametrize("seed", range(40))
def test_no_other_cut_has_a_cheaper_dearest_stage_nor_a_smaller_sum_of_squares(seed):
    draw = random.Random(seed)
    costs = [draw.randint(1, 9) for _ in range(draw.randint(1, 9))]
    stages = draw.randint(1, len(costs))
    found = sums(costs, cut(costs, stages))
    best = min((max(s), sum(x * x for x in s)) for s in map_sums(costs, stages))
    assert (max(found), sum(x * x for x in found)) == best


def map_sums(costs: list[int], stages: int) -> list[list[int]]:
    return [sums(costs, parts) for parts in every_cut(len(costs), stages)]


def test_equal_blocks_are_shared_out_equally():
    assert cut([5] * 12, 3) == [range(4), range(4, 8), range(8, 12)]
    assert sorted(len(part) for part in cut([5] * 11, 4)) == [2, 3, 3, 3]


def test_a_dear_last_block_stands_alone():
    assert cut([1, 1, 1, 1, 4], 2) == [range(4), range(4, 5)]


def test_as_many_stages_as_blocks_gives_each_its_own():
    assert cut([9, 1, 1], 3) == [range(1), range(1, 2), range(2, 3)]


def test_many_blocks_are_cut_without_delay():
    parts = cut([7] * 255 + [20], 64)
    assert parts[0].start == 0
    assert parts[-1].stop == 256
    assert all(len(part) for part in parts)


@pytest.mark.parametrize("stages", [0, 4])
def test_a_number_of_stages_that_cannot_be_names_the_bounds(stages):
    with pytest.raises(ModelError, match=rf"stages = {stages}: the model has 3 blocks") as caught:
        cut([1, 1, 1], stages)
    assert "\n" not in str(caught.value)
