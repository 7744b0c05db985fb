"""Workers that a demo slows down: as unequal, on one machine, or as equal as asked.

Processes that share the cores speed up when another one dies. Where every worker is slowed alike
until all of them fit, each has the share of a machine of its own, whoever else lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarmnet.config import MAX_SLOWDOWN
from swarmnet.errors import ConfigError

EVERYBODY = "all"


class Slow(dict[int, float]):
    """How many times as long a step of worker-<index> takes; ``everybody``: of all not named."""

    def __init__(self, named: Mapping[int, float] | None = None, everybody: float = 1.0) -> None:
        super().__init__(named or {})
        self.everybody = everybody

    def __missing__(self, index: int) -> float:
        return self.everybody


def slow_workers(items: Sequence[str], workers: int) -> Slow:
    """``INDEX:FACTOR`` or ``all:FACTOR``, several or with commas between them.

    Raises ConfigError.
    """
    named: dict[int | None, float] = {}
    for item in (part.strip() for text in items for part in text.split(",")):
        index, times = _parsed(item)
        if index is not None and not 0 <= index < workers:
            raise ConfigError(f"--slow {item}: the workers are worker-0 to worker-{workers - 1}")
        if index in named:
            who = "everybody" if index is None else f"worker-{index}"
            raise ConfigError(f"--slow {item}: {who} is slowed already")
        if not 1 <= times <= MAX_SLOWDOWN:
            raise ConfigError(f"--slow {item}: the factor must be 1 to {MAX_SLOWDOWN}")
        named[index] = times
    everybody = named.pop(None, 1.0)
    return Slow({index: times for index, times in named.items() if index is not None}, everybody)


def _parsed(item: str) -> tuple[int | None, float]:
    """Whom, None for everybody, and by how much."""
    index, _, factor = item.partition(":")
    try:
        return None if index == EVERYBODY else int(index), float(factor)
    except ValueError as error:
        raise ConfigError(
            f"--slow {item!r}: write it as INDEX:FACTOR, as in 1:10, or all:FACTOR"
        ) from error
