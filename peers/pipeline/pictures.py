"""The pictures of a pipeline's report: a course in, an inline SVG out.

All times are seconds since the first sample was on its way. A stage has the same colour in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from peers.pipeline.story import Course, Server, Stay
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
from peers.report.pictures import HALF, WIDE, clock_foot, cross, fault_lines
from peers.story import Record
from peers.units import amount

RAW_POINTS = 400
ROW, TOP = 40.0, 30.0
SMOOTH_KEEP = 0.7
BIN_S = 2.0


def timeline(course: Course) -> str:
    """Each peer's life in the colour of the stage that it serves; trainers below."""
    rows = len(course.servers) + len(course.senders)
    plot = Plot(128, TOP, WIDE - 148, ROW * rows, time_axis(course), Axis(0, 1))
    parts: list[str] = []
    for row, server in enumerate(course.servers):
        parts.append(_life(course, server, plot, TOP + ROW * row))
    for row, sender in enumerate(course.senders, len(course.servers)):
        begin, end = sender.reports[0]["time"], sender.last["time"]
        y = TOP + ROW * row
        parts.append(text((plot.left - 12, y + 25), sender.name[:16], "end peer"))
        parts.append(_bar(plot, (begin - course.began, end - course.began), y, "var(--base)"))
    parts += [clock_foot(plot), fault_lines(course, plot, label=True)]
    return picture((WIDE, TOP + ROW * rows + 28), parts, "Who served which stage when")


def loss(course: Course) -> str:
    """Training loss as the trainers report it."""
    points = [
        (at - course.began, loss)
        for sender in course.senders
        for at, loss in sender.losses()
        if math.isfinite(loss) and loss > 0
    ]
    if len(points) < 2:
        return ""
    points.sort()
    values = [value for _, value in points]
    y = Axis(min(values) * 0.96, max(values) * 1.04, log=True)
    plot = _half(course, y)
    parts = [
        plot.grid([(v, f"{v:g}") for v in y.ticks(7)]),
        plot.dots(thin(points, RAW_POINTS), 'class="faint"'),
        plot.line(thin(smooth(points, SMOOTH_KEEP), RAW_POINTS), 'class="curve accent"'),
        clock_foot(plot),
        fault_lines(course, plot),
    ]
    return picture((HALF, 332), parts, "Training loss over time")


def throughput(course: Course) -> str:
    """Tokens per second of all trainers: reports faint, smoothed strong."""
    rates = _binned(course, course.reports, "tokens", lambda values: sum(values) / BIN_S)
    if len(rates) < 2:
        return ""
    y = Axis(0, max(value for _, value in rates) * 1.08 or 1.0)
    plot = _half(course, y)
    parts = [
        plot.grid([(v, amount(v)) for v in y.ticks(5)]),
        plot.dots(rates, 'class="faint"'),
        plot.line(smooth(rates, SMOOTH_KEEP), 'class="curve second"'),
        clock_foot(plot),
        fault_lines(course, plot),
    ]
    return picture((HALF, 332), parts, "Tokens per second over time")


def queues(course: Course) -> str:
    """Samples in each stage's hands that are not answered yet, all of its peers together."""
    curves = [_queue(course, stage) for stage in range(course.stages)]
    most = max((value for curve in curves for _, value in curve), default=0.0)
    return _by_stage(course, curves, Axis(0, max(most, 1.0) * 1.08), "Samples at each stage")


def steps(course: Course) -> str:
    """The step number of each stage; they stay within one of each other."""
    curves = [
        [(float(line["time"]) - course.began, float(line["step"])) for line in course.steps(stage)]
        for stage in range(course.stages)
    ]
    most = max((value for curve in curves for _, value in curve), default=0.0)
    return _by_stage(course, curves, Axis(0, max(most, 1.0) * 1.04), "Steps of each stage")


def legend(course: Course) -> str:
    """Stages beside their colours."""
    items = [
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><line x1="0" x2="26" y1="5" y2="5"'
        f' stroke-width="6" {stroke(stage)}/></svg>stage {stage}</li>'
        for stage in range(course.stages)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def time_axis(course: Course) -> Axis:
    return Axis(0.0, max(course.ended - course.began, 1.0))


def _half(course: Course, y: Axis) -> Plot:
    return Plot(54, 14, HALF - 70, 290, time_axis(course), y)


def _by_stage(course: Course, curves: Sequence[Sequence[Point]], y: Axis, label: str) -> str:
    if not any(len(curve) > 1 for curve in curves):
        return ""
    plot = _half(course, y)
    parts = [plot.grid([(v, f"{v:g}") for v in y.ticks(6)])]
    for stage, curve in enumerate(curves):
        parts.append(plot.line(thin(curve, RAW_POINTS), f'class="curve" {stroke(stage)}'))
    parts += [clock_foot(plot), fault_lines(course, plot)]
    return picture((HALF, 332), parts, label)


def _life(course: Course, server: Server, plot: Plot, y: float) -> str:
    parts = [text((plot.left - 12, y + 25), server.name[:16], "end peer")]
    for stay in server.stays:
        span = stay.begin - course.began, stay.end - course.began
        parts.append(_bar(plot, span, y, colour(stay.stage), _said(stay)))
        if stay.left >= 0:
            parts.append(_mark(plot, span[0], y, f"moved from stage {stay.left} to {stay.stage}"))
    if server.killed is not None:
        at = plot.px(server.killed - course.began) + 8
        parts.append(cross((at, y + 20), "killed", "dead"))
    return "".join(parts)


def _said(stay: Stay) -> str:
    return f"stage {stay.stage}"


def _bar(plot: Plot, span: tuple[float, float], y: float, shade: str, label: str = "") -> str:
    left, right = plot.px(span[0]), plot.px(span[1])
    width = max(right - left, 1.0)
    bar = (
        f'<rect x="{left:.1f}" y="{y + 10:.1f}" width="{width:.1f}" height="20" rx="4"'
        f' fill="{shade}" fill-opacity="0.75"><title>{escape(label)}</title></rect>'
    )
    if not label or width < 7.5 * len(label):
        return bar
    return bar + text((left + 8, y + 24.5), label, "start on-bar")


def _mark(plot: Plot, at: float, y: float, label: str) -> str:
    """An arrow head where a peer came from another stage."""
    x = plot.px(at)
    return (
        f'<path class="move" d="M{x - 9:.1f} {y + 12:.1f}l8 8l-8 8">'
        f"<title>{escape(label)}</title></path>"
    )


def _queue(course: Course, stage: int) -> list[Point]:
    """Means over ``BIN_S`` of each peer's reports, peers added."""
    sums: dict[float, float] = {}
    for server in course.at(stage):
        loads = [line for line in server.loads if line["stage"] == stage]
        for at, mean in _binned(course, loads, "under_way", lambda v: sum(v) / len(v)):
            sums[at] = sums.get(at, 0.0) + mean
    return sorted(sums.items())


def _binned(
    course: Course, lines: Sequence[Record], key: str, fold: Callable[[list[float]], float]
) -> list[Point]:
    bins: dict[int, list[float]] = {}
    for line in lines:
        at = float(line["time"]) - course.began
        if at >= 0:
            bins.setdefault(int(at // BIN_S), []).append(float(line[key]))
    return [((number + 0.5) * BIN_S, fold(values)) for number, values in sorted(bins.items())]
