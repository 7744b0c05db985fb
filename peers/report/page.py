"""The report's page: order of its sections and the words between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peers.report import parts, pictures, replay, ties
from peers.report.draw import escape
from peers.report.style import SHEET
from peers.story import Story


def page(story: Story, summary: Mapping[str, Any]) -> str:
    """The whole document. Everything that came from peers is escaped where it is written."""
    title = f"Run {story.run}" if story.run else "A run"
    body = [
        f'<p class="tale">{parts.tale(story, summary)}</p>',
        parts.cards(summary),
        *_sections(story, summary),
    ]
    return document(title, body)


def document(title: str, body: Sequence[str]) -> str:
    """A whole page around sections that are HTML already; ``title`` is escaped here."""
    head = f'<p class="over">swarmnet report</p><h1>{escape(title)}</h1>'
    foot = "<footer>Written by swarmnet from events.jsonl. Nothing is loaded.</footer>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{SHEET}</style></head>"
        f"<body><main>{head}{''.join(body)}{foot}</main></body></html>\n"
    )


def _sections(story: Story, summary: Mapping[str, Any]) -> list[str]:
    sections: list[str] = []
    if any(worker.steps for worker in story.workers):
        sections += _pictured(story)
    ends = section(
        "Held-out loss",
        "Nats per token, lower is better; in brackets the distance to the merged model.",
        parts.held_out(story, summary),
    )
    written = parts.sample(story)
    if written:
        said = "The merged model goes on from the coloured prompt."
        ends = pair(ends, section("What it writes", said, written))
    return [
        *sections,
        ends,
        section("Work and traffic", "", parts.traffic(story)),
        section("Peers", "Loss is the mean of the last 20 steps.", parts.peer_table(story)),
        *_links(summary),
        section("What the figures mean", "", parts.glossary()),
    ]


def _links(summary: Mapping[str, Any]) -> list[str]:
    table = ties.links(summary["links"])
    return [section("Links", ties.SAID, table)] if table else []


def _pictured(story: Story) -> list[str]:
    shown = replay.replay(story)
    return [
        *([section("Replay", replay.SAID, shown)] if shown else []),
        section(
            "Training loss",
            "Nats per token, logarithmic; strong lines are smoothed, faint ones are single steps. "
            "The shaded end is the consensus phase.",
            parts.legend(story) + wide(pictures.loss(story)),
        ),
        pair(
            section(
                "Agreement",
                "How far replicas are from their mean, estimated at each meeting.",
                f'<div class="figure">{pictures.agreement(story)}</div>',
            ),
            section(
                "Who met whom",
                "Random pairs; a chord is as thick as the two met often.",
                f'<div class="figure">{pictures.circle(story)}</div>{parts.matrix(story)}',
            ),
        ),
        section(
            "Meetings over time",
            "Each bar is a worker's life; each mark is how an exchange window ended.",
            parts.strip_legend() + wide(pictures.timeline(story)),
        ),
    ]


def section(title: str, say: str, content: str) -> str:
    """``say`` explains what ``content``, HTML already, shows."""
    said = f'<p class="say">{escape(say)}</p>' if say else ""
    return f"<section><h2>{escape(title)}</h2>{said}{content}</section>"


def pair(left: str, right: str) -> str:
    """Two sections side by side."""
    return f'<div class="two">{left}{right}</div>'


def wide(drawn: str) -> str:
    """A picture as wide as the page."""
    return f'<div class="scroll"><div class="figure wide">{drawn}</div></div>'
