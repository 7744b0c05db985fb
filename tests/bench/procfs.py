"""What Linux tells of a process. Where there is no /proc every figure is 0."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Memory held now, shared pages included."""
    return 1024 * _field(f"/proc/{pid}/status", "VmRSS:")


def written_bytes(pid: int) -> int:
    """Bytes handed to ``write`` and its like so far, to files and to sockets."""
    return _field(f"/proc/{pid}/io", "wchar:")


def cpu_seconds(pid: int) -> float:
    """User and system time so far, all threads."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for line in lists for child in line.read_text().split()]


def _field(path: str, name: str) -> int:
    file = Path(path)
    if not file.exists():
        return 0
    words = file.read_text().split()
    return int(words[words.index(name) + 1])
