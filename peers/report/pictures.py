"""The report's pictures: one function a picture, a story in, an inline SVG out.

All times are seconds since the swarm's first inner step began.
"""

from __future__ import annotations

import itertools
import math

from peers.pipeline.story import Course
from peers.report.draw import (
    Axis,
    Plot,
    Point,
    colour,
    escape,
    picture,
    smooth,
    stroke,
    text,
    thin,
)
from peers.story import Story, Worker
from peers.summary import estimated_disagreement
from peers.units import clock, short

WIDE = 1000.0
HALF = 520.0
RAW_POINTS = 400
SMOOTH_KEEP = 0.9
STRIPS = 120
# Drawing every pair of a large swarm says less than the table below it.
MOST_IN_CIRCLE = 24
MOST_FAULT_LINES = 24


def loss(story: Story) -> str:
    """Training loss of every worker: raw faint, smoothed strong."""
    curves = [_curve(story, worker, "loss") for worker in story.workers]
    values = [y for curve in curves for _, y in curve if math.isfinite(y) and y > 0]
    if not values:
        return ""
    low, high = min(values), max(values)
    y = Axis(low * 0.96, high * 1.04, log=True)
    plot = Plot(54, 34, WIDE - 70, 300, time_axis(story), y)
    parts = [after_training(story, plot), plot.grid([(v, f"{v:g}") for v in y.ticks(7)])]
    for index, curve in enumerate(curves):
        parts.append(plot.line(thin(curve, RAW_POINTS), f'class="raw" {stroke(index)}'))
    for index, curve in enumerate(curves):
        even = thin(smooth(curve, SMOOTH_KEEP), RAW_POINTS)
        parts.append(plot.line(even, f'class="curve" {stroke(index)}'))
    parts += [clock_foot(plot), fault_lines(story, plot, label=True)]
    return picture((WIDE, 362), parts, "Training loss of each worker over time")


def agreement(story: Story) -> str:
    """Disagreement, estimated from meetings, above the learning rate, on one time axis."""
    meetings = [line for line in story.meetings() if line["distance"] > 0]
    points: list[Point] = []
    for line in meetings:
        estimate = estimated_disagreement([line["distance"]], story.alive_at(line["time"]))
        if estimate:
            points.append((line["time"] - story.began, estimate))
    rates = _curve(story, max(story.workers, key=lambda w: len(w.steps)), "lr")
    if not rates:
        return ""
    parts: list[str] = []
    x = time_axis(story)
    if points:
        values = [value for _, value in points]
        y = Axis(min(values) * 0.8, max(values) * 1.25, log=True)
        top = Plot(62, 30, HALF - 78, 290, x, y)
        even = [(t, math.exp(v)) for t, v in smooth([(t, math.log(v)) for t, v in points], 0.8)]
        parts += [
            text((0, 14), "disagreement of the replicas", "name"),
            after_training(story, top),
            top.grid([(v, short(v)) for v in y.ticks(6)]),
            top.dots(thin(points, RAW_POINTS), 'class="faint"'),
            top.line(thin(even, RAW_POINTS), 'class="curve accent"'),
            fault_lines(story, top),
        ]
    peak = max(value for _, value in rates) or 1.0
    low = Plot(62, 376, HALF - 78, 136, x, Axis(0, peak * 1.08))
    parts += [
        text((0, 358), "learning rate", "name"),
        after_training(story, low),
        low.grid([(v, short(v)) for v in low.y.ticks(3)]),
        low.line(thin(rates, RAW_POINTS), 'class="curve second"'),
        fault_lines(story, low),
        clock_foot(low),
    ]
    return picture((HALF, 540), parts, "Disagreement of the replicas beside the learning rate")


def circle(story: Story) -> str:
    """Who met whom: peers on a circle, a chord per pair, as thick as they met often."""
    workers = story.workers
    pairs = [
        (one, other, story.met(workers[one], workers[other]))
        for one, other in itertools.combinations(range(len(workers)), 2)
    ]
    most = max((count for *_, count in pairs), default=0)
    if len(workers) > MOST_IN_CIRCLE or not most:
        return ""
    radius, middle = 118.0, (HALF / 2, 176.0)

    def spot(index: int, reach: float) -> Point:
        turn = 2 * math.pi * index / len(workers) - math.pi / 2
        return middle[0] + reach * math.cos(turn), middle[1] + reach * math.sin(turn)

    parts: list[str] = []
    for one, other, count in sorted(pairs, key=lambda pair: pair[2]):
        if count:
            (ax, ay), (bx, by) = spot(one, radius), spot(other, radius)
            share = count / most
            title = f"{workers[one].name} and {workers[other].name}: {count} meetings"
            parts.append(
                f'<path d="M{ax:.1f} {ay:.1f} Q{middle[0]:.1f} {middle[1]:.1f} {bx:.1f} {by:.1f}"'
                f' class="chord" stroke-width="{1 + 13 * share:.1f}"'
                f' stroke-opacity="{0.18 + 0.42 * share:.2f}"><title>{escape(title)}</title></path>'
            )
    for index, worker in enumerate(workers):
        (x, y), label = spot(index, radius), spot(index, radius + 24)
        side = "mid" if abs(label[0] - middle[0]) < 20 else "end" if label[0] < x else "start"
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="12" fill="{colour(index)}" class="node"/>',
            text((label[0], label[1] + 4), worker.name[:18], f"{side} peer"),
        ]
    return picture((HALF, 352), parts, "Who met whom")


def timeline(story: Story) -> str:
    """Each worker's life and how its windows ended: ok as shade, solo and failed as marks."""
    row, top = 40.0, 30.0
    height = top + row * len(story.workers)
    plot = Plot(128, top, WIDE - 148, row * len(story.workers), time_axis(story), Axis(0, 1))
    parts = [after_training(story, plot)]
    for index, worker in enumerate(story.workers):
        if worker.steps:
            parts.append(_strip(story, worker, plot, (index, top + row * index)))
    parts += [clock_foot(plot), fault_lines(story, plot, label=True)]
    return picture((WIDE, height + 28), parts, "How every worker's exchange windows ended")


def _strip(story: Story, worker: Worker, plot: Plot, place: tuple[int, float]) -> str:
    index, y = place
    begin = worker.steps[0]["time"] - worker.steps[0]["seconds"] - story.began
    left, right = plot.px(begin), plot.px(worker.ended - story.began)
    parts = [
        text((plot.left - 12, y + 25), worker.name[:16], "end peer"),
        f'<rect x="{left:.1f}" y="{y + 10:.1f}" width="{max(right - left, 1):.1f}" height="20"'
        f' rx="4" fill="{colour(index)}" fill-opacity="0.16"/>',
    ]
    width = plot.width / STRIPS
    bins = _bins(story, worker, plot)
    most = max((cell["ok"] for cell in bins.values()), default=0)
    for number, cell in sorted(bins.items()):
        x = plot.left + number * width
        if cell["ok"]:
            shade = 0.35 + 0.65 * cell["ok"] / most
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 10:.1f}" width="{width - 1:.1f}" height="20" rx="1"'
                f' fill="{colour(index)}" fill-opacity="{shade:.2f}">'
                f"<title>{cell['ok']} ok</title></rect>"
            )
        centre = x + width / 2
        if cell["solo"]:
            parts.append(
                f'<circle cx="{centre:.1f}" cy="{y + 20:.1f}" r="3.6" class="solo">'
                f"<title>{cell['solo']} solo</title></circle>"
            )
        if cell["failed"]:
            parts.append(cross((centre, y + 20), f"{cell['failed']} failed"))
    if not worker.survived:
        parts.append(cross((right + 8, y + 20), "killed", "dead"))
    return "".join(parts)


def _bins(story: Story, worker: Worker, plot: Plot) -> dict[int, dict[str, int]]:
    bins: dict[int, dict[str, int]] = {}
    for line in worker.exchanges:
        outcome = "ok" if line["outcome"] == "late" else line["outcome"]
        if outcome in ("ok", "solo", "failed"):
            number = min(int(plot.x.share(line["time"] - story.began) * STRIPS), STRIPS - 1)
            cell = bins.setdefault(number, {"ok": 0, "solo": 0, "failed": 0})
            cell[outcome] += 1
    return bins


def cross(at: Point, title: str, style: str = "failed") -> str:
    x, y = at
    return (
        f'<path class="{style}" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8">'
        f"<title>{escape(title)}</title></path>"
    )


def _curve(story: Story, worker: Worker, key: str) -> list[Point]:
    return [(float(line["time"]) - story.began, float(line[key])) for line in worker.steps]


def time_axis(story: Story) -> Axis:
    """From the first inner step to the last meeting."""
    return Axis(0.0, max(story.ended - story.began, 1.0))


def clock_foot(plot: Plot) -> str:
    """The time axis."""
    count = 10 if plot.width > HALF else 5
    return plot.foot([(seconds, clock(seconds)) for seconds in plot.x.clock_ticks(count)])


def after_training(story: Story, plot: Plot) -> str:
    """Shade the time of the consensus phase."""
    left = plot.px(story.trained_until - story.began)
    if plot.right - left < 3:
        return ""
    return (
        f'<rect class="after" x="{left:.1f}" y="{plot.top}" width="{plot.right - left:.1f}"'
        f' height="{plot.height}"><title>consensus phase</title></rect>'
    )


def fault_lines(story: Story | Course, plot: Plot, label: bool = False) -> str:
    """A vertical line per kill, comeback and newcomer; labels step aside when they would overlap.

    Where much is done to a swarm, lines would hide it: the replay shows the rest.
    """
    parts: list[str] = []
    taken = -math.inf
    lines = [line for line in story.faults if line["kind"] in ("kill", "join")]
    for line in lines if len(lines) <= MOST_FAULT_LINES else []:
        x = plot.px(line["time"] - story.began)
        kind = "kill" if line["kind"] == "kill" and not line["over"] else "join"
        parts.append(
            f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{plot.top - 8}"'
            f' y2="{plot.bottom}"/>'
        )
        does = "killed" if kind == "kill" else "returns" if line["over"] else "joins"
        words = f"{story.name_of(line['subject'])[:16]} {does}"
        if label and x > taken:
            parts.append(text((x, plot.top - 14), words, f"mid {kind}-name"))
            taken = x + 7.5 * len(words)
    return "".join(parts)
