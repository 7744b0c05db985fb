"""Where a chain of blocks is cut, so that no stage takes much longer than another.

Every peer of a run computes the same cut from the run file alone, hence whole numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from swarmnet.errors import ModelError


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a run's stages before any is built, by trainers too.

    ``layers[i]`` are the transformer blocks of stage i and ``costs[i]`` its multiplications per
    token of a forward pass; ``width`` is the number of features between blocks, ``vocab`` that of
    ids.
    """

    width: int
    vocab: int
    layers: tuple[range, ...]
    costs: tuple[int, ...]


def plan(costs: Sequence[int], stages: int, *, width: int, vocab: int) -> Plan:
    """The cut of blocks that cost ``costs``. Raises ModelError as ``cut`` does."""
    layers = tuple(cut(costs, stages))
    return Plan(width, vocab, layers, tuple(sum(costs[i] for i in part) for part in layers))


def cut(costs: Sequence[int], stages: int) -> list[range]:
    """Contiguous parts of ``costs``, none empty, whose dearest is as cheap as can be.

    Among those, the parts with the least sum of squares: the dearest stage sets the pace, and the
    others should not lag behind it either. A tie goes to shorter early parts.

    Raises:
        ModelError: more stages than blocks, or none.
    """
    if not 1 <= stages <= len(costs):
        raise ModelError(
            f"pipeline.stages = {stages}: the model has {len(costs)} blocks, so between 1 and "
            f"{len(costs)} stages"
        )
    bound = _least_bound(costs, stages)
    sums = [0, *accumulate(costs)]

    @cache
    def best(start: int, left: int) -> tuple[int, tuple[int, ...]] | None:
        """Least sum of squares of ``costs[start:]`` in ``left`` parts, and where they end."""
        ends = range(start + 1, len(costs) - left + 2) if left > 1 else (len(costs),)
        found = None
        for end in ends:
            part = sums[end] - sums[start]
            if part > bound:
                break
            rest = best(end, left - 1) if left > 1 else (0, ())
            if rest is not None and (found is None or part**2 + rest[0] < found[0]):
                found = (part**2 + rest[0], (end, *rest[1]))
        return found

    chosen = best(0, stages)
    assert chosen is not None
    return [range(*pair) for pair in zip((0, *chosen[1][:-1]), chosen[1], strict=True)]


def _least_bound(costs: Sequence[int], stages: int) -> int:
    """The cost of the dearest of ``stages`` parts where that is least, by bisection."""
    low, high = max(costs), sum(costs)
    while low < high:
        middle = (low + high) // 2
        if _parts_needed(costs, middle) <= stages:
            high = middle
        else:
            low = middle + 1
    return low


def _parts_needed(costs: Sequence[int], bound: int) -> int:
    parts, room = 0, -1
    for cost in costs:
        if cost > room:
            parts, room = parts + 1, bound
        room -= cost
    return parts
