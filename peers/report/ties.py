"""The report's table of links: who sends, receives, starts and answers how fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peers.report.draw import escape

TITLES = ("peer", "sends", "receives", "starts", "answers in", "unanswered")
SAID = (
    "Time per byte and time to start, as multiples of the median of all links. "
    "Below three times it may be load; a figure is never a reason to shut a peer out."
)


def links(figures: Mapping[str, Any]) -> str:
    """What stands out in words, then one row for each peer; empty when nothing was measured."""
    if not figures["measured"] and not figures["verdicts"]:
        return ""
    said = "".join(f"<li>{escape(verdict['said'])}</li>" for verdict in figures["verdicts"])
    words = f"<ul>{said}</ul>" if said else '<p class="say">No peer and no link stands out.</p>'
    head = "".join(f"<th>{title}</th>" for title in TITLES)
    rows = "".join(_row(name, row) for name, row in figures["peers"].items())
    return f'{words}<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _row(name: str, row: Mapping[str, Any]) -> str:
    cells = [_times(row[key]) for key in ("sends", "receives", "starts")]
    cells.append("-" if row["answer_s"] is None else f"{1000 * row['answer_s']:.0f} ms")
    cells.append(str(row["unanswered"]))
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><td>{escape(name)}</td>{body}</tr>"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}\N{MULTIPLICATION SIGN}"
