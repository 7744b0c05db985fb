"""Where local swarms are forked: a parent that has imported everything and started nothing.

Importing torch, transformers and hivemind costs seconds of CPU per process; forks of one preloaded
parent that holds no thread and no socket start in a fraction of that.
"""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from swarmnet.errors import SwarmnetError

PRELOAD = ("peers.preload",)
CHILDREN = "peers.children"
PARENT_CHECK_S = 1.0
OUTPUT = "output.txt"
INVITE = "invite.txt"
"""Where a bootstrap child leaves its invite."""
RESULT = "result.json"
"""Where a child that computes something leaves it."""


def preload() -> None:
    """Let the server import beside whatever the caller does next. Harmless when it runs already."""
    multiprocessing.set_forkserver_preload(list(PRELOAD))
    multiprocessing.forkserver.ensure_running()


@dataclass
class Child:
    """One forked process of the swarm. ``out`` is its own folder."""

    name: str
    out: Path
    process: ForkServerProcess

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    @property
    def exit_code(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        """kill -9: no farewell, no checkpoint."""
        self.process.kill()

    def terminate(self) -> None:
        """SIGTERM: the process leaves in good order."""
        self.process.terminate()

    def join(self, seconds: float) -> bool:
        """Whether it ended in time."""
        self.process.join(seconds)
        return not self.running

    def last_words(self) -> str:
        """The end of what it printed, for the message of a run that failed."""
        try:
            lines = (self.out / OUTPUT).read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""


class Nursery:
    """Forks children into folders under ``root``. ``close`` leaves none behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.children: list[Child] = []
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        preload()

    def start(self, name: str, work: str, *arguments: Any) -> Child:
        """Run ``work(out, *arguments)``, a function of ``peers.children``, in a child.

        It is named and not handed over, so that the starter need not import what it imports.
        """
        out = self.root / name
        out.mkdir(parents=True, exist_ok=True)
        process = self._context.Process(
            target=_run, args=(out, os.getpid(), work, arguments), name=f"swarmnet-{name}"
        )
        process.start()
        child = Child(name, out, process)
        self.children.append(child)
        return child

    def close(self, grace_s: float = 6.0) -> None:
        """Ask all to leave, then make sure."""
        for child in self.children:
            if child.running:
                child.terminate()
        deadline = time.monotonic() + grace_s
        for child in self.children:
            if not child.join(max(0.0, deadline - time.monotonic())):
                child.kill()
                child.join(2.0)


def _run(out: Path, starter: int, work: str, arguments: tuple[Any, ...]) -> None:
    """In the child: print into a file, die with whoever started the swarm, translate errors."""
    output = os.open(out / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    threading.Thread(target=_die_with, args=(starter,), daemon=True).start()
    try:
        children = importlib.import_module(CHILDREN)
        code = getattr(children, work)(out, *arguments)
    except SwarmnetError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        code = error.exit_code
    except Exception:  # noqa: BLE001 - the last line of a child; its parent reads the file
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    sys.exit(code)


def _die_with(starter: int) -> None:
    """A forked child's parent is the server, which outlives a killed starter: watch that one."""
    while True:
        try:
            os.kill(starter, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(PARENT_CHECK_S)
