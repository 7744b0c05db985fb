"""How much of the text a swarm has read, and how much of it twice: key data of summary.json."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from peers.story import Record

MOST_EPOCHS = 16


def coverage(events: Sequence[Record]) -> dict[str, Any] | None:
    """Figures in blocks that were read to their end; None where nobody tells of any.

    ``epochs``: how many times the text's size was read. ``duplication``: reads of what was read
    before in the same epoch, as a share of all reads. ``coverage``: the share of the epoch that
    the swarm as a whole is in which anybody has read; ``by_epoch`` has the last ones.
    """
    told = [line for line in events if line["event"] == "blocks_read" and line["of"] > 0]
    if not told:
        return None
    reads: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for line in told:
        reads[int(line["epoch"])].update(line["blocks"])
    of = int(told[-1]["of"])
    total = sum(times.total() for times in reads.values())
    distinct = sum(map(len, reads.values()))
    epochs = total / of
    return {
        "epochs": epochs,
        "blocks": of,
        "coverage": len(reads.get(int(epochs), ())) / of,
        "duplication": 1 - distinct / total,
        "by_epoch": [
            {
                "epoch": epoch,
                "coverage": len(times) / of,
                "duplication": 1 - len(times) / times.total(),
            }
            for epoch, times in sorted(reads.items())[-MOST_EPOCHS:]
        ],
    }
