"""Does to real processes what the ward decided: signals, limits from outside, the weather file.

All works without root and on children of one's own. Limits need Linux (``prlimit``); elsewhere a
storm that asks for them is refused before it begins.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peers.nursery import Child
from peers.storm import weather
from peers.storm.plan import (
    LIMITS,
    ClockJump,
    FdLimit,
    MemoryLimit,
    SlowLink,
    StormConfig,
)
from peers.storm.ward import Act
from peers.storm.weather import Line, Weather
from swarmnet.errors import ConfigError

Limit = tuple[int, int]
DIE_S = 5.0
_RESOURCES = {
    "disk_full": resource.RLIMIT_FSIZE,
    "memory_limit": resource.RLIMIT_AS,
    "fd_limit": resource.RLIMIT_NOFILE,
}


def check(storm: StormConfig) -> None:
    """Raises ConfigError when this system cannot do what ``storm`` asks for."""
    if not hasattr(resource, "prlimit") and set(LIMITS) & storm.troubles.keys():
        raise ConfigError(f"{', '.join(LIMITS)}: only Linux can limit another process")


class Hands:
    """Holds the children by name. ``fork`` starts one, in its own folder if it had one, and hands
    it over with ``take``.

    ``before_kill`` may still look at a child that is about to die.
    """

    def __init__(self, storm: StormConfig, sky: Path, fork: Callable[[str], object]) -> None:
        """``sky``: the weather file that the children are told of."""
        self.before_kill: Callable[[Child], None] = lambda child: None
        self.children: dict[str, Child] = {}
        self._storm = storm
        self._sky = sky
        self._fork = fork
        self._ids: dict[str, str] = {}
        self._far: set[str] = set()
        self._weather = Weather()
        self._limits: dict[tuple[str, str], Limit] = {}

    def take(self, child: Child) -> None:
        self.children[child.name] = child

    def know(self, name: str, peer_id: str) -> None:
        """The id behind a name; a wall may wait for it."""
        if self._ids.get(name) != peer_id:
            self._ids[name] = peer_id
            if name in self._far:
                self._wall()

    def do(self, act: Act) -> None:
        """Raises OSError when the system refuses; a child that is gone already is no error."""
        for name in act.subjects:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                self._HANDLERS[act.fault.kind](self, act, name)
        if act.enters:
            self._fork(act.enters)

    def thaw_all(self) -> None:
        """Nobody must be left stopped: it would not hear that it is to end."""
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                if child.running:
                    os.kill(child.pid, signal.SIGCONT)

    # ---- one for each kind --------------------------------------------------------------------

    def _kill(self, act: Act, name: str) -> None:
        if not act.over:
            child = self.children[name]
            self.before_kill(child)
            child.kill()
            child.join(DIE_S)

    def _join(self, act: Act, name: str) -> None:
        """``do`` forks it."""

    def _freeze(self, act: Act, name: str) -> None:
        os.kill(self.children[name].pid, signal.SIGCONT if act.over else signal.SIGSTOP)

    def _partition(self, act: Act, name: str) -> None:
        (self._far.discard if act.over else self._far.add)(name)
        self._wall()

    def _wall(self) -> None:
        far = frozenset(self._ids[name] for name in self._far if name in self._ids)
        self._tell(replace(self._weather, far=far))

    def _slow_link(self, act: Act, name: str) -> None:
        kind = self._storm.slow_link
        assert isinstance(kind, SlowLink)
        line = None if act.over else Line(kind.rate, kind.latency_s)
        lines = _changed(self._weather.lines, self._ids.get(name, name), line)
        self._tell(replace(self._weather, lines=lines))

    def _clock_jump(self, act: Act, name: str) -> None:
        kind = self._storm.clock_jump
        assert isinstance(kind, ClockJump)
        way = random.Random(act.fault.draw).choice((1, -1))
        by_s = None if act.over else way * kind.by_s
        clocks = _changed(self._weather.clocks, self._ids.get(name, name), by_s)
        self._tell(replace(self._weather, clocks=clocks))

    def _disk_full(self, act: Act, name: str) -> None:
        self._limit(act, name, 0)

    def _memory_limit(self, act: Act, name: str) -> None:
        kind = self._storm.memory_limit
        assert isinstance(kind, MemoryLimit)
        pages = int(_proc(self.children[name], "statm").split()[0])
        self._limit(act, name, pages * resource.getpagesize() + kind.spare_bytes)

    def _fd_limit(self, act: Act, name: str) -> None:
        kind = self._storm.fd_limit
        assert isinstance(kind, FdLimit)
        held = len(os.listdir(f"/proc/{self.children[name].pid}/fd"))
        self._limit(act, name, held + kind.spare)

    # ---- means --------------------------------------------------------------------------------

    def _limit(self, act: Act, name: str, soft: int) -> None:
        """Lower the soft limit, keep the hard one: so it can be raised again."""
        what, pid, key = _RESOURCES[act.fault.kind], self.children[name].pid, (act.fault.kind, name)
        if not act.over:
            before = self._limits[key] = resource.prlimit(pid, what)
            resource.prlimit(pid, what, (soft, before[1]))
        elif key in self._limits:
            resource.prlimit(pid, what, self._limits.pop(key))

    def _tell(self, now: Weather) -> None:
        self._weather = now
        weather.write(self._sky, now)

    _HANDLERS: Mapping[str, Callable[[Hands, Act, str], None]] = {
        "kill": _kill,
        "join": _join,
        "freeze": _freeze,
        "partition": _partition,
        "slow_link": _slow_link,
        "clock_jump": _clock_jump,
        "disk_full": _disk_full,
        "memory_limit": _memory_limit,
        "fd_limit": _fd_limit,
    }


def _changed(table: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """``table`` with ``value`` at ``key``, or without it."""
    rest = {k: v for k, v in table.items() if k != key}
    return rest if value is None else rest | {key: value}


def _proc(child: Child, name: str) -> str:
    return Path(f"/proc/{child.pid}/{name}").read_text()
