"""``report.html``: one run on one self-contained page that needs no network.

One small script moves the replay; all else stands without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peers.report.page import page
from peers.story import Record, tell

__all__ = ["write", "write_report"]


def write_report(path: Path, events: Sequence[Record], summary: Mapping[str, Any]) -> None:
    """Write the report of the run that left ``events``; ``summary`` as ``summarise`` gives it."""
    write(path, page(tell(events), summary))


def write(path: Path, document: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(document, encoding="utf-8", errors="replace")
    part.replace(path)
