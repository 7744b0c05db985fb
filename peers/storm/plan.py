"""What is to happen to a swarm, and when: a pure function of a storm file and a seed.

Each kind of fault has a Poisson clock of its own for the whole swarm, whatever its size, so
taking a kind out of a file leaves the times of the others as they were. A fault names nobody: it
carries a draw, by which the ward finds its victim among those who are well at that moment.
"""

from __future__ import annotations

import heapq
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from peers.configs_folder import shipped
from swarmnet.config import Section
from swarmnet.errors import ConfigError

Then = Literal["returns", "replaced", "gone"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
MAX_BYTES = 64 * 1024
SHIPPED = ("gentle", "storm32", "everything")
LIMITS = ("disk_full", "memory_limit", "fd_limit")
"""Faults that end by themselves when the process dies: its successor has the old limits."""


class Span(Section):
    """How long one fault lasts: anything between the two, seconds, drawn evenly."""

    least: Seconds
    most: Seconds

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        """``30`` or ``[20, 40]``."""
        if isinstance(value, int | float):
            return {"least": value, "most": value}
        if isinstance(value, list) and len(value) == 2:
            return {"least": value[0], "most": value[1]}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError("the shorter time comes first")
        return self

    def draw(self, rng: random.Random) -> float:
        return rng.uniform(self.least, self.most)


class Trouble(Section):
    """One kind of fault. ``every_s`` is the mean time between two, in the whole swarm.

    ``law`` poisson: anything may follow anything; regular: always just so long.
    """

    every_s: Seconds
    law: Literal["poisson", "regular"] = "poisson"


class Lasting(Trouble):
    """A fault that is over after a while."""

    for_s: Span


class Kill(Trouble):
    """kill -9. ``then``: it returns in its own folder, somebody new replaces it, or it is gone."""

    then: Then = "returns"
    for_s: Span = Field(Span(least=1, most=1), description="seconds until somebody is back")


class Partition(Lasting):
    """The swarm in two: ``share`` of the peers reach only each other."""

    share: float = Field(0.5, gt=0, lt=1)


class SlowLink(Lasting):
    """One peer's line: bytes per second each way, and seconds until an answer begins."""

    rate: float = Field(250_000, ge=1_000)
    latency_s: float = Field(0.1, ge=0, le=10)


class ClockJump(Lasting):
    """One peer's wall clock is wrong by so many seconds, either way."""

    by_s: float = Field(600, gt=0, le=86_400)


class MemoryLimit(Lasting):
    """One process may take so much more than it has."""

    spare_bytes: int = Field(32 << 20, ge=0)


class FdLimit(Lasting):
    """One process may open so many more files and streams than it has."""

    spare: int = Field(4, ge=0)


class StormConfig(Section):
    """A storm file: one table for each kind that is to happen. ``quiet``: share of the run at its
    end without new faults; ``floor``: so many peers that have trained are always left alone."""

    quiet: float = Field(0.1, ge=0, lt=1)
    floor: int = Field(2, ge=1)
    kill: Kill | None = None
    join: Trouble | None = None
    freeze: Lasting | None = None
    partition: Partition | None = None
    slow_link: SlowLink | None = None
    clock_jump: ClockJump | None = None
    disk_full: Lasting | None = None
    memory_limit: MemoryLimit | None = None
    fd_limit: FdLimit | None = None

    @property
    def troubles(self) -> dict[str, Trouble]:
        """The kinds that happen."""
        found = ((kind, getattr(self, kind)) for kind in KINDS)
        return {kind: trouble for kind, trouble in found if trouble is not None}


KINDS = tuple(name for name in StormConfig.model_fields if name not in ("quiet", "floor"))


@dataclass(frozen=True)
class Fault:
    """``number`` counts the faults of a storm; ``at`` seconds after its start, for ``seconds``.

    ``draw`` in [0, 1) finds the victim. ``seconds`` is 0 where nothing is over: a join, or a kill
    of which nobody comes back.
    """

    number: int
    at: float
    kind: str
    seconds: float
    draw: float


def plan(storm: StormConfig, seed: int) -> Iterator[Fault]:
    """All faults in the order of their times, without end; the same seed brings the same ones."""
    clocks = [_clock(kind, trouble, seed) for kind, trouble in storm.troubles.items()]
    for number, (at, kind, seconds, draw) in enumerate(heapq.merge(*clocks)):
        yield Fault(number, at, kind, seconds, draw)


def load(name: str) -> StormConfig:
    """A storm file, or the name of a shipped one. Raises ConfigError."""
    path = Path(name)
    if not path.exists():
        known = shipped("storms", name) if path.name == name else None
        if known is None:
            raise ConfigError(f"storm {name}: no such file; shipped ones: {', '.join(SHIPPED)}")
        path = known
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"storm {name}: cannot be read: {error.strerror}") from error
    return parse(raw, path.name)


def parse(raw: bytes, source: str) -> StormConfig:
    """Raises ConfigError when the bytes are no storm file, or one in which nothing happens."""
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES} bytes")
    try:
        storm = StormConfig.model_validate(tomllib.loads(raw.decode()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source}: {where}: {said}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error
    if not storm.troubles:
        raise ConfigError(f"{source}: nothing happens; known kinds: {', '.join(KINDS)}")
    return storm


def turnover(kill_every_s: float | None, join_every_s: float | None) -> StormConfig:
    """Kills from which nobody comes back, and newcomers, at regular times. Raises ConfigError."""
    for option, every_s in (("--kill-every", kill_every_s), ("--join-every", join_every_s)):
        if every_s is not None and not 0 < every_s <= 86_400:
            raise ConfigError(f"{option} {every_s:g}: give seconds above 0, and at most a day")
    kill = Kill(every_s=kill_every_s, law="regular", then="gone") if kill_every_s else None
    join = Trouble(every_s=join_every_s, law="regular") if join_every_s else None
    return StormConfig(kill=kill, join=join)


def _clock(kind: str, trouble: Trouble, seed: int) -> Iterator[tuple[float, str, float, float]]:
    rng = random.Random(f"{seed} {kind}")
    lasts = getattr(trouble, "for_s", None)
    if isinstance(trouble, Kill) and trouble.then == "gone":
        lasts = None
    at = 0.0
    while True:
        gap = rng.expovariate(1 / trouble.every_s) if trouble.law == "poisson" else trouble.every_s
        at += gap
        yield at, kind, lasts.draw(rng) if lasts else 0.0, rng.random()
