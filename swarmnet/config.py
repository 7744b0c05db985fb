"""What a swarm agrees on (``RunConfig``) and what one machine chooses (``PeerConfig``).

A run is one TOML file. Its bytes, as published, are what all peers share: the fingerprint is
their hash, so two peers with the same fingerprint read the same numbers. A run file holds no
paths; local folders are named there by content hash and found through the peer file.

A choice is written as ``codec = "int8"`` or, with options, as a table with a ``name``:
``[codec]``, ``name = "int8"``, ``block = 512``.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swarmnet import registry
from swarmnet.errors import ConfigError

SCHEMA = 1
MAX_RUN_FILE_BYTES = 64 * 1024
MAX_DOTS_PER_LINE = 128
MAX_SLOWDOWN = 1000
MAX_PORT = 1 << 16


class Section(BaseModel):
    """Base of every config section and of every choice's ``Config``: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(BaseModel):
    """One value of a choice folder with its options, checked by the chosen class's ``Config``."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def config(self, folder: str) -> Any:
        """The chosen class's own ``Config``. Raises ConfigError or pydantic's ValidationError."""
        return registry.find(folder, self.name).Config(**self.options)

    def build(self, folder: str, *runtime: Any) -> Any:
        """The chosen object: ``Class(config, *runtime)``."""
        return registry.find(folder, self.name)(self.config(folder), *runtime)


class Target(Section):
    """When the run is over: progress is the larger of the two shares."""

    tokens: int = Field(gt=0, description="tokens read by all peers together")
    minutes: float = Field(gt=0, description="longest training time, from the first inner step")


class Batch(Section):
    """One inner step of one peer."""

    sequences: int = Field(8, gt=0)
    length: int = Field(128, gt=1, description="tokens per sequence")


class Schedule(Section):
    """Learning rate over the progress of the run: linear warm-up, then cosine."""

    warmup: float = Field(0.05, ge=0, lt=1, description="share of the run")
    final: float = Field(0.1, ge=0, le=1, description="last rate over the peak rate")


class Consensus(Section):
    """The pure averaging at the end, when the learning rate is down."""

    matching: Choice = Choice(name="hypercube")
    budget_s: float = Field(30.0, gt=0, description="give up waiting for partners after this")
    bound: float = Field(
        0.01, ge=0, lt=1, description="stop at this share of the disagreement at its beginning"
    )


class Membership(Section):
    """How fast the phone book turns over."""

    renew_s: float = Field(10.0, ge=0.5, le=120, description="seconds between record renewals")


class Pipeline(Section):
    """How a model is cut that is too large for one machine. One stage: it is not cut."""

    stages: int = Field(1, ge=1, le=256, description="peers of each hold its layers alone")
    batch: int = Field(
        64,
        gt=0,
        description="sequences behind one step; together: of all peers of a stage, apart: of each",
    )
    step: Literal["together", "apart"] = Field(
        "together",
        description="together: peers of a stage average gradients and stay identical; "
        "apart: each steps alone and meets others of its stage as outer and cadence say",
    )
    floor: int = Field(2, ge=1, description="a stage with so many peers is never left by one")
    delayed: bool = Field(False, description="a step's gradient is applied one batch later")
    handover: Literal["direct", "hub"] = Field(
        "direct", description="stage to stage, or every boundary through the trainer"
    )

    @model_validator(mode="after")
    def _delays_have_mates(self) -> Self:
        if self.delayed and self.step == "apart":
            raise ValueError(
                'delayed = true hides the averaging of a step: with step = "apart" there is none'
            )
        return self


class RunConfig(Section):
    """Everything that all peers of a run must agree on."""

    schema_: Literal[1] = Field(1, alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    seed: int = Field(0, ge=0, lt=2**63)
    target: Target
    batch: Batch = Batch()
    schedule: Schedule = Schedule()
    consensus: Consensus = Consensus()
    membership: Membership = Membership()
    model: Choice
    data: Choice = Choice(name="stdlib")
    sharing: Choice = Choice(name="rendezvous")
    inner: Choice = Choice(name="adamw")
    outer: Choice = Choice(name="average")
    cadence: Choice = Choice(name="every_h")
    matching: Choice = Choice(name="random_pairs")
    reduce: Choice = Choice(name="mean")
    codec: Choice = Choice(name="raw")
    pipeline: Pipeline = Pipeline()
    wiring: Choice = Choice(name="swarm")
    boundary: Choice = Choice(name="plain")

    @model_validator(mode="after")
    def _choices_hold(self) -> Self:
        for folder in registry.FOLDERS:
            choice: Choice = getattr(self, folder)
            _check_choice(folder, folder, choice)
        _check_choice("consensus.matching", "matching", self.consensus.matching)
        if self.consensus.matching.build("matching").size(3) > 2:
            raise ConfigError(
                f"consensus.matching = {self.consensus.matching.name!r} meets in groups; the end "
                'of a run averages in pairs: use "hypercube" or "random_pairs"'
            )
        self._check_private_text()
        return self

    def _check_private_text(self) -> None:
        """Raises ConfigError where peers read texts of their own and other choices do not fit."""
        if registry.find("data", self.data.name).shared:
            return
        if self.sharing.name == "rendezvous":
            raise ConfigError(
                f"data = {self.data.name!r}: what only one peer has cannot be shared out; "
                'set sharing = "own"'
            )
        rows = self.outer.build("outer").shares([1, 2])
        weighs = self.pipeline.stages == 1 and any(one != two for one, two in rows)
        if self.data.config("data").unequal and not weighs:
            raise ConfigError(
                f"data = {self.data.name!r} counts peers by the size of their texts and outer = "
                f"{self.outer.name!r} counts all alike: set outer.by_work or outer.by_rate, "
                "or data.power = 0"
            )


class PeerConfig(Section):
    """What one machine chooses for itself; nobody else needs to know."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: int = Field(0, ge=0, description="torch threads; 0 leaves torch's own choice")
    port: int = Field(0, ge=0, le=65535, description="0 lets the system choose")
    announce: tuple[str, ...] = Field((), description="multiaddrs that others should dial")
    host: str = Field("*", description="address to listen on; * is all, IPv4 and IPv6")
    reach: Literal["auto", "public", "private"] = Field(
        "auto", description="whether others can connect to this machine; auto asks one of them"
    )
    relay_mib: int = Field(
        4096,
        ge=0,
        le=1024 * 1024,
        description="MiB relayed for hidden peers, each circuit and direction; 0: for nobody",
    )
    identity: Path | None = Field(None, description="key file; default inside --out")
    checkpoint_s: float = Field(60.0, gt=0, description="seconds between checkpoints")
    checkpoints: int = Field(3, ge=1, le=1000, description="how many of the newest are kept")
    hourly: int = Field(6, ge=0, le=10_000, description="and of how many hours of training one")
    stale_s: float = Field(
        300.0,
        gt=0,
        description="an own checkpoint so much older than the swarm gives way to a peer's state; "
        "two checkpoint intervals at least",
    )
    donor_s: float = Field(
        120.0, gt=0, description="how long a joiner waits while no part of a state comes"
    )
    give_to: int = Field(2, ge=1, le=64, description="joiners that are given the state at once")
    give_share: float = Field(
        0.018, gt=0, le=1, description="of the machine's cores may go into giving while it trains"
    )
    serve_s: float = Field(300.0, ge=0, description="how long to serve the result at the end")
    notice: Choice | None = Field(
        None, description="how this machine hears that it will be taken away"
    )
    notice_s: float = Field(5.0, gt=0, le=600, description="seconds between two looks at it")
    leave_s: float = Field(
        5.0, ge=2, le=3600, description="how long leaving may take: work is handed over until then"
    )
    status: str = Field(
        "",
        description='a page about this peer is shown there: "127.0.0.1:8080"',
    )
    at_once: int = Field(
        0, ge=0, le=64, description="microbatches a stage computes at once; 0: 4 on a GPU, else 1"
    )
    slowdown: float = Field(
        1.0,
        ge=1,
        le=MAX_SLOWDOWN,
        description="for experiments: each step takes this many times as long",
    )
    step_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="for experiments: each step of a worker takes so long at least",
    )
    weather: Path | None = Field(
        None, description="for experiments: file that tells of walls, slow lines, wrong clocks"
    )
    models: dict[str, Path] = Field({}, description="content hash -> local model folder")
    texts: dict[str, Path] = Field({}, description="content hash -> local file or folder")
    cache: Path | None = Field(
        None, description="folder for tokenised texts, which may be larger than memory then"
    )

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.status:
            split_address(self.status)
        if self.notice is not None:
            _check_choice("notice", "notice", self.notice)
        return self


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:8080`` or ``[::1]:8080``. Raises ConfigError."""
    host, sign, port = text.rpartition(":")
    if not sign or not host or not port.isdecimal() or int(port) >= MAX_PORT:
        raise ConfigError(f'status = {text!r}: write it as "127.0.0.1:8080"')
    return host.removeprefix("[").removesuffix("]"), int(port)


def next_address(text: str, part: int) -> str:
    """The same host, ``part`` ports further on; what the system chooses it chooses again."""
    if not text:
        return ""
    host, port = split_address(text)
    return f"[{host}]:{port + part if port else 0}"


class RunFile:
    """A run file's bytes with what they say. The bytes are the truth; the config is a reading."""

    def __init__(self, raw: bytes, source: str = "run file") -> None:
        """Raises ConfigError when the bytes are no valid run file."""
        self.raw = raw
        self.source = source
        self.config: RunConfig = _validate(RunConfig, _parse_toml(raw, source), source)

    @classmethod
    def load(cls, path: Path, overrides: Iterable[str] = ()) -> RunFile:
        """Read ``path``; with overrides (``section.key=value``) the result is a new run file."""
        raw = _read_bytes(path)
        overrides = list(overrides)
        if overrides:
            table = apply_overrides(_parse_toml(raw, str(path)), overrides)
            raw = tomli_w.dumps(table).encode()
        return cls(raw, str(path))

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits over the published bytes and the schema number."""
        return fingerprint(self.raw)


def fingerprint(raw: bytes) -> str:
    """What names a run in the DHT prefix, in every hello and in the invite."""
    return hashlib.sha256(b"swarmnet run schema %d\n" % SCHEMA + raw).hexdigest()[:32]


def load_peer(path: Path | None, overrides: Iterable[str] = ()) -> PeerConfig:
    """The peer file (or none: defaults) with overrides. Raises ConfigError."""
    source = str(path) if path else "peer settings"
    table = _parse_toml(_read_bytes(path), source) if path else {}
    return _validate(PeerConfig, apply_overrides(table, overrides), source)


def apply_overrides(table: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``table`` with each ``section.key=value`` set; values are TOML, else text."""
    result = _deep_copy(table)
    for item in overrides:
        path, sign, text = item.partition("=")
        keys = path.strip().split(".")
        if not sign or not all(keys):
            raise ConfigError(f"--set {item!r}: write it as section.key=value")
        _set_path(result, keys, _toml_value(text.strip()), item)
    return result


def differing_keys(mine: bytes, theirs: bytes) -> list[str]:
    """Dotted keys, each as ``key: mine -> theirs``, in which two run files differ."""
    ours, others = (_flatten(_parse_toml(raw, "run file")) for raw in (mine, theirs))
    keys = sorted(ours.keys() | others.keys())
    return [
        f"{_printable(key)}: {ours.get(key, '(absent)')!r} -> {others.get(key, '(absent)')!r}"
        for key in keys
        if ours.get(key) != others.get(key)
    ]


def _printable(key: str) -> str:
    """A stranger's key without the control characters that a terminal would obey."""
    return key.encode("unicode_escape").decode()


def _check_choice(place: str, folder: str, choice: Choice) -> None:
    try:
        choice.config(folder)
    except ValidationError as error:
        cls = registry.find(folder, choice.name).Config
        raise ConfigError(_first_problem(error, cls, prefix=f"{place}.")) from error


SectionT = TypeVar("SectionT", bound=Section)


def _validate(cls: type[SectionT], table: Mapping[str, Any], source: str) -> SectionT:
    try:
        return cls.model_validate(table)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error, cls)}") from error


def _first_problem(error: ValidationError, cls: type[BaseModel], prefix: str = "") -> str:
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    key = (prefix + ".".join(parts)).rstrip(".")
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(parts[-1], _known_keys(cls, parts[:-1]), n=1)
        return f"unknown key {key!r}." + (f" Did you mean {close[0]!r}?" if close else "")
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    where = f"{key}: " if key else ""
    return where + message + (f" (got {first['input']!r})" if parts else "")


def _known_keys(cls: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The legal keys of the section at ``path`` below ``cls``; none when it is no section."""
    for key in path:
        field = cls.model_fields.get(key)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        cls = inner
    return [field.alias or name for name, field in cls.model_fields.items()]


def _parse_toml(raw: bytes, source: str) -> dict[str, Any]:
    if len(raw) > MAX_RUN_FILE_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_RUN_FILE_BYTES} bytes")
    # A refusal carries a stranger's file, and tomllib takes minutes over one endless dotted key.
    if any(line.count(b".") > MAX_DOTS_PER_LINE for line in raw.splitlines()):
        raise ConfigError(f"{source}: a line with more than {MAX_DOTS_PER_LINE} dots")
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _set_path(table: dict[str, Any], keys: Sequence[str], value: Any, item: str) -> None:
    for key in keys[:-1]:
        inner = table.setdefault(key, {})
        if isinstance(inner, str):
            inner = table[key] = {"name": inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {item!r}: {key!r} is a value, not a section")
        table = inner
    table[keys[-1]] = value


def _deep_copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _deep_copy(v) if isinstance(v, Mapping) else v for k, v in table.items()}


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
