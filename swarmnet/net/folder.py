"""The private folder that holds a node's sockets, and what a killed process left of its own."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path

PREFIX = "swarmnet-"
_LOCK = "lock"
_MAX_CHARS = 60
"""A Unix socket's path has room for about 100 characters, file name included."""


class PrivateFolder:
    """A new folder that only this user may enter, locked for as long as its owner lives.

    The system drops the lock of a killed process, and the next node to start removes its folder.
    The lock gets its name only once it is held, so nobody finds it free while the owner lives.
    """

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        if len(str(parent)) + len(PREFIX) > _MAX_CHARS:
            parent = Path("/tmp")
        for folder in parent.glob(PREFIX + "*"):
            if _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        unnamed = self.path / f"{_LOCK}.new"
        self._lock = unnamed.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.path / _LOCK)

    def remove(self) -> None:
        """May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _abandoned(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False
