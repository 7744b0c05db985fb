"""The replay: every peer's fate on one time axis, and a slider that shows the swarm at any moment.

The picture says everything without the script. The script reads the same figures from a block of
JSON in the page, moves a cursor and draws who is up and who has just met; it loads nothing, and
what came from peers is only ever set as text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from peers.report.draw import Axis, Plot, colour, escape, picture, text
from peers.report.pictures import WIDE, after_training, clock_foot, cross, time_axis
from peers.report.replay_script import SCRIPT
from peers.story import Hurt, Story, Worker
from peers.units import printable

ROW, BAR = 24.0, 13.0
LEFT = 128.0
MOST_MEETINGS = 4000
BINS = 240
STATES = {"freeze": "frozen", "partition": "far"}
"""Other kinds of faults are ``sick``; without one a peer is ``up``."""
LEGEND = (
    ('<rect width="26" height="10" rx="2" fill="var(--peer-0)" fill-opacity=".45"/>', "trains"),
    ('<rect width="26" height="10" rx="2" class="span frozen"/>', "frozen"),
    ('<rect width="26" height="10" rx="2" class="span far"/>', "beyond a wall"),
    ('<rect width="26" height="10" rx="2" class="span sick"/>', "slow line, wrong clock, limits"),
    ('<path class="failed" d="M9 1l8 8m0 -8l-8 8"/>', "killed"),
    ('<path class="back" d="M9 -1l9 6l-9 6z"/>', "is back, or joins"),
    ('<path class="tie" d="M13 0V10"/>', "two meet"),
)
SAID = (
    "What was done to whom. Move the slider, or press play: the ring shows who is up at that "
    "moment and who has just met."
)


def replay(story: Story) -> str:
    """The section's content; empty for a run in which nothing was done on purpose."""
    if not story.faults or not any(worker.steps for worker in story.workers):
        return ""
    plot = Plot(LEFT, 12, WIDE - LEFT - 20, ROW * len(story.workers), time_axis(story), Axis(0, 1))
    items = "".join(
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true">{mark}</svg>{words}</li>'
        for mark, words in LEGEND
    )
    data = json.dumps(figures(story, plot)).replace("<", "\\u003c")
    return (
        f'<div class="replay"><ul class="legend">{items}</ul>'
        f'<div class="scroll"><div class="figure wide">{timeline(story, plot)}</div></div>'
        '<div class="player"><button type="button" aria-label="play or stop">play</button>'
        '<input type="range" min="0" max="1000" value="0" aria-label="moment of the run">'
        '</div><div class="moment"><div class="ring"></div><dl class="words now"></dl></div>'
        f'<script type="application/json">{data}</script><script>{SCRIPT}</script></div>'
    )


def timeline(story: Story, plot: Plot) -> str:
    """A bar for each peer's lives, marks for what was done to it, a line for each meeting."""
    parts = [after_training(story, plot), _ties(story, plot)]
    for index, worker in enumerate(story.workers):
        parts.append(_row(story, worker, plot, index))
    parts.append(clock_foot(plot))
    parts.append(f'<line class="cursor" y1="{plot.top - 6}" y2="{plot.bottom}"/>')
    return picture((WIDE, plot.bottom + 28), parts, "What was done to each peer over time")


def figures(story: Story, plot: Plot) -> dict[str, Any]:
    """What the script reads. Times are seconds since the first step."""
    end, (stride, found) = plot.x.high, _meetings(story)
    peers = [
        {
            "name": printable(worker.name, 24),
            "lives": [_since(story, life) for life in worker.lives],
            "hurts": [
                [_state(hurt), *_since(story, (hurt.began, min(hurt.ended, story.ended)))]
                for hurt in worker.hurts
                if hurt.kind != "kill"
            ],
        }
        for worker in story.workers
    ]
    return {
        "end": round(end, 2),
        "left": plot.left,
        "width": plot.width,
        "trained": round(story.trained_until - story.began, 2),
        "peers": peers,
        "met": [[round(at, 2), one, other] for at, one, other in found],
        "thinned": stride,
        **_curves(story, end),
    }


def _curves(story: Story, end: float) -> dict[str, list[Any]]:
    """Steps so far and mean training loss at ``BINS`` moments."""
    counts, sums, known = [0] * BINS, [0.0] * BINS, [0] * BINS
    for worker in story.workers:
        for line in worker.steps:
            place = min(int((line["time"] - story.began) / end * BINS), BINS - 1)
            counts[place] += 1
            if math.isfinite(line["loss"]):
                sums[place] += line["loss"]
                known[place] += 1
    steps = [sum(counts[: place + 1]) for place in range(BINS)]
    loss = [round(s / n, 3) if n else None for s, n in zip(sums, known, strict=True)]
    return {"steps": steps, "loss": loss}


def _meetings(story: Story) -> tuple[int, list[tuple[float, int, int]]]:
    """One of how many, and (seconds, place of one, place of the other) of each."""
    places = {worker.name: place for place, worker in enumerate(story.workers)}
    found = []
    for place, worker in enumerate(story.workers):
        for line in worker.outcomes("ok", "late"):
            other = places.get(story.name_of(line["partner"]))
            # Both sides log it: one is enough, unless the other was killed before it could.
            if other is not None and (place < other or not story.workers[other].survived):
                found.append((float(line["time"]) - story.began, place, other))
    found.sort()
    stride = max(1, math.ceil(len(found) / MOST_MEETINGS))
    return stride, found[::stride]


def _ties(story: Story, plot: Plot) -> str:
    """All meetings as one path."""
    marks = [
        f"M{plot.px(at):.1f} {_middle(plot, one):.0f}V{_middle(plot, other):.0f}"
        for at, one, other in _meetings(story)[1]
    ]
    opacity = min(0.5, max(0.06, 60 / (len(marks) + 1)))
    return f'<path class="tie" stroke-opacity="{opacity:.2f}" d="{"".join(marks)}"/>'


def _row(story: Story, worker: Worker, plot: Plot, index: int) -> str:
    y = _middle(plot, index)
    parts = [text((plot.left - 12, y + 4), worker.name[:16], "end peer")]
    for begin, end in worker.lives:
        parts.append(_bar(plot, _since(story, (begin, end)), y, _fill(index)))
    for hurt in worker.hurts:
        parts += _mark(story, hurt, plot, y)
    if worker.joined and worker.starts:
        parts.append(_wedge(plot.px(worker.starts[0] - story.began), y, "joins"))
    return "".join(parts)


def _mark(story: Story, hurt: Hurt, plot: Plot, y: float) -> Iterator[str]:
    begin, end = _since(story, (hurt.began, min(hurt.ended, story.ended)))
    if hurt.kind == "kill":
        yield cross((plot.px(begin), y), "killed", "dead")
        if hurt.successor:
            yield _wedge(plot.px(end), y, f"back after {end - begin:.1f} s")
        return
    yield _bar(plot, (begin, end), y, f'class="span {_state(hurt)}"', hurt.kind)


def _bar(plot: Plot, span: Sequence[float], y: float, style: str, title: str = "") -> str:
    left, right = plot.px(span[0]), plot.px(span[1])
    said = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{left:.1f}" y="{y - BAR / 2:.1f}" width="{max(right - left, 1):.1f}"'
        f' height="{BAR}" rx="3" {style}>{said}</rect>'
    )


def _fill(index: int) -> str:
    return f'fill="{colour(index)}" fill-opacity="0.45"'


def _wedge(x: float, y: float, title: str) -> str:
    return (
        f'<path class="back" d="M{x:.1f} {y - 6:.1f}l9 6l-9 6z"><title>{escape(title)}</title>'
        "</path>"
    )


def _middle(plot: Plot, index: int) -> float:
    return plot.top + ROW * (index + 0.5)


def _since(story: Story, span: Sequence[float]) -> list[float]:
    return [round(moment - story.began, 2) for moment in span]


def _state(hurt: Hurt) -> str:
    return STATES.get(hurt.kind, "sick")
