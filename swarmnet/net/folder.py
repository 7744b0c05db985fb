"""The private folder that holds a node's sockets, and what a killed process left of its own."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

PREFIX = "swarmnet-"
INCOMING = "in.sock"
"""Our own listening socket; nobody behind it means that the folder's owner is gone."""
_MAX_CHARS = 60
"""A Unix socket's path has room for about 100 characters, file name included."""


def private_folder() -> Path:
    """A new folder that only this user may enter; first sweeps out those of dead processes."""
    parent = tempfile.gettempdir()
    if len(parent) + len(PREFIX) > _MAX_CHARS:
        parent = "/tmp"
    for folder in Path(parent).glob(PREFIX + "*"):
        if _abandoned(folder / INCOMING):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))


def _abandoned(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
