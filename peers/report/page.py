"""The report's page: order of its sections and the words between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peers.report import parts, pictures, ties
from peers.report.draw import escape
from peers.report.style import SHEET
from peers.story import Story


def page(story: Story, summary: Mapping[str, Any]) -> str:
    """The whole document. Everything that came from peers is escaped where it is written."""
    title = f"Run {story.run}" if story.run else "A run"
    body = [
        f'<p class="over">swarmnet report</p><h1>{escape(title)}</h1>',
        f'<p class="tale">{parts.tale(story, summary)}</p>',
        parts.cards(summary),
        *_sections(story, summary),
        "<footer>Written by swarmnet from events.jsonl. No scripts, nothing loaded.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{SHEET}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _sections(story: Story, summary: Mapping[str, Any]) -> list[str]:
    sections: list[str] = []
    if any(worker.steps for worker in story.workers):
        sections += _pictured(story)
    ends = _section(
        "Held-out loss",
        "Nats per token, lower is better; in brackets the distance to the merged model.",
        parts.held_out(story, summary),
    )
    written = parts.sample(story)
    if written:
        said = "The merged model goes on from the coloured prompt."
        ends = _pair(ends, _section("What it writes", said, written))
    return [
        *sections,
        ends,
        _section("Work and traffic", "", parts.traffic(story)),
        _section("Peers", "Loss is the mean of the last 20 steps.", parts.peer_table(story)),
        *_links(summary),
        _section("What the figures mean", "", parts.glossary()),
    ]


def _links(summary: Mapping[str, Any]) -> list[str]:
    table = ties.links(summary["links"])
    return [_section("Links", ties.SAID, table)] if table else []


def _pictured(story: Story) -> list[str]:
    return [
        _section(
            "Training loss",
            "Nats per token, logarithmic; strong lines are smoothed, faint ones are single steps. "
            "The shaded end is the consensus phase.",
            parts.legend(story) + _wide(pictures.loss(story)),
        ),
        _pair(
            _section(
                "Agreement",
                "How far replicas are from their mean, estimated at each meeting.",
                f'<div class="figure">{pictures.agreement(story)}</div>',
            ),
            _section(
                "Who met whom",
                "Random pairs; a chord is as thick as the two met often.",
                f'<div class="figure">{pictures.circle(story)}</div>{parts.matrix(story)}',
            ),
        ),
        _section(
            "Meetings over time",
            "Each bar is a worker's life; each mark is how an exchange window ended.",
            parts.strip_legend() + _wide(pictures.timeline(story)),
        ),
    ]


def _section(title: str, say: str, content: str) -> str:
    said = f'<p class="say">{escape(say)}</p>' if say else ""
    return f"<section><h2>{escape(title)}</h2>{said}{content}</section>"


def _pair(left: str, right: str) -> str:
    return f'<div class="two">{left}{right}</div>'


def _wide(drawn: str) -> str:
    return f'<div class="scroll"><div class="figure wide">{drawn}</div></div>'
