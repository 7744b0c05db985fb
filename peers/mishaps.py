"""What is done to peers on purpose, in words: the same in the live view and in the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from peers.story import Record

WORDS = {
    "kill": ("was killed", "is back"),
    "join": ("joined", ""),
    "freeze": ("is frozen", "goes on after a freeze"),
    "partition": ("is cut off by a wall", "is no longer cut off"),
    "slow_link": ("has a slow line", "has its line back"),
    "clock_jump": ("has a wrong clock", "has its clock right again"),
    "disk_full": ("has a full disk", "has room on its disk again"),
    "memory_limit": ("may take no more memory", "may take memory again"),
    "fd_limit": ("may open no more files", "may open files again"),
}
NOUNS = {
    "kill": ("kill", "kills"),
    "join": ("newcomer", "newcomers"),
    "freeze": ("freeze", "freezes"),
    "partition": ("partition", "partitions"),
    "slow_link": ("slow line", "slow lines"),
    "clock_jump": ("wrong clock", "wrong clocks"),
    "disk_full": ("full disk", "full disks"),
    "memory_limit": ("limit on memory", "limits on memory"),
    "fd_limit": ("limit on files", "limits on files"),
    "returned": ("comeback", "comebacks"),
}


def happened(line: Record) -> str:
    """What a fault event says of its subject; a kind of another version is named as it is."""
    begins, ends = WORDS.get(line["kind"], (line["kind"], f"is over {line['kind']}"))
    if line["over"] and line["successor"] not in ("", line["subject"]):
        return f"is replaced by {line['successor']}"
    return ends if line["over"] else begins


def counted(faults: Mapping[str, int]) -> str:
    """``3 kills, 1 freeze and 3 comebacks``."""
    known = Counter(faults)
    words = [f"{known[kind]} {names[known[kind] != 1]}" for kind, names in NOUNS.items()
             if known[kind]]  # fmt: skip
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])
