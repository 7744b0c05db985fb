"""From a user's wishes to the run file and peer settings of a swarm on this machine."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tomli_w

from peers.demo import DemoOptions
from peers.pipeline.demo import PipelineOptions
from peers.slow import Slow
from peers.storm.hands import check
from peers.storm.plan import StormConfig, load, turnover
from swarmnet.config import RunConfig, RunFile
from swarmnet.errors import ConfigError, StorageError

SERVE_S = 600.0
"""Workers serve until the merge is done and they are told to leave."""
PEERS_PER_STAGE = 2


@dataclass(frozen=True)
class Wishes:
    """What the user of ``swarmnet demo`` asked for. ``minutes`` None: as the run file says.

    ``workers`` of a pipeline are its stage peers.
    """

    run: Path
    workers: int
    minutes: float | None = None
    seed: int | None = None
    data: Path | None = None
    overrides: tuple[str, ...] = ()
    slow: Slow = field(default_factory=Slow)
    """Of workers, or of a pipeline's peers."""
    storm: StormConfig | None = None


def prepare(wishes: Wishes, out: Path, *, churn: bool, solo: bool) -> DemoOptions:
    """Raises ConfigError, DataError, StorageError."""
    scaled = () if _names_tokens(wishes) else (f"target.tokens={_tokens(wishes)}",)
    run, settings = _prepare(wishes, scaled)
    if wishes.storm is not None:
        check(wishes.storm)
    _claim(out)
    alone = _alone(wishes, run) if solo else None
    options = DemoOptions(run, out, wishes.workers, churn, alone, settings, wishes.slow)
    return replace(options, storm=wishes.storm)


def prepare_pipeline(wishes: Wishes, out: Path, *, churn: bool) -> PipelineOptions:
    """Raises ConfigError, DataError, StorageError."""
    run, settings = _prepare(wishes, ())
    stages = run.config.pipeline.stages
    if stages < 2:
        raise ConfigError(f"{wishes.run.name}: not a pipeline, it has no [pipeline] stages = 2")
    if run.config.pipeline.step == "apart":
        raise ConfigError('pipeline.step = "apart": the demo\'s ledger is of steps taken together')
    peers = wishes.workers or PEERS_PER_STAGE * stages
    if peers < stages:
        raise ConfigError(f"--peers {peers}: the run has {stages} stages, each needs somebody")
    _claim(out)
    return PipelineOptions(run, out, peers, 1, churn, settings, wishes.slow)


def _prepare(wishes: Wishes, scaled: Sequence[str]) -> tuple[RunFile, dict[str, object]]:
    """The run and everybody's peer file."""
    overrides = [*wishes.overrides, *scaled]
    settings: dict[str, object] = {"threads": 1, "host": "127.0.0.1", "serve_s": SERVE_S}
    if wishes.minutes is not None:
        if wishes.minutes <= 0:
            raise ConfigError("--minutes must be above 0")
        overrides.append(f"target.minutes={wishes.minutes}")
    if wishes.seed is not None:
        overrides.append(f"seed={wishes.seed}")
    if wishes.data is not None:
        from swarmnet.data.text import content_hash

        digest = content_hash(wishes.data)
        overrides += ['data.name="text"', f'data.hash="{digest}"']
        settings["texts"] = {digest: str(wishes.data.resolve())}
    return RunFile.load(wishes.run, overrides), settings


def storm_of(
    name: str | None, kill_every_s: float | None, join_every_s: float | None, *, churn: bool
) -> StormConfig | None:
    """What the user wants to be done to the workers. Raises ConfigError."""
    if name is None and kill_every_s is None and join_every_s is None:
        return None
    if not churn:
        raise ConfigError("--no-churn means that nobody is hurt: leave it out")
    if name is None:
        return turnover(kill_every_s, join_every_s)
    if kill_every_s is not None or join_every_s is not None:
        raise ConfigError("--storm says who is killed and who joins: give it alone")
    return load(name)


def _alone(wishes: Wishes, run: RunFile) -> RunFile:
    """The same run for one worker, with the learning rate that suits it best.

    ``<name>-solo.toml`` beside the run file holds the best of a sweep; without one, a worker alone
    trains at the run's own rate.
    """
    table = tomllib.loads(run.raw.decode())
    tuned = wishes.run.with_name(f"{wishes.run.stem}-solo.toml")
    if tuned.exists():
        table["inner"] = tomllib.loads(tuned.read_text())["inner"]
    return RunFile(tomli_w.dumps(table).encode(), f"{run.source}, alone")


def _names_tokens(wishes: Wishes) -> bool:
    return any(item.startswith("target.tokens") for item in wishes.overrides)


def _tokens(wishes: Wishes) -> int:
    """A run file's target is meant for four workers: the steps of one stay the same.

    A slow worker reads fewer tokens; the others neither make up for it nor stop early.
    """
    config: RunConfig = RunFile.load(wishes.run).config
    strength = sum(1 / wishes.slow[index] for index in range(wishes.workers))
    return max(1, int(config.target.tokens * strength / 4))


def _claim(out: Path) -> None:
    """Two runs never share a folder: events and checkpoints of both would mix."""
    if (out / "peers").exists():
        raise ConfigError(f"{out} holds a run already; give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror}") from error
