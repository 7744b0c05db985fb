"""A soak as one picture: the lives of the workers, their meetings, their memory, on one clock."""

from __future__ import annotations

from soak_record import Record, Worker

from peers.report.draw import Axis, Plot, colour, picture, stroke, text
from peers.report.style import DARK, LIGHT
from peers.units import clock

WIDE, LEFT = 1000.0, 78.0
ROW, BAR = 26.0, 12.0
BIN_S = 30.0
STYLE = (
    f"<style>:root{{{LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}"
    'text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--soft)}'
    ".tick{font-size:12.5px;fill:var(--faint)}.mid{text-anchor:middle}.end{text-anchor:end}"
    ".head{font-weight:600;fill:var(--ink)}.grid{stroke:var(--rule)}.base{stroke:var(--base)}"
    ".sheet{fill:var(--card)}.frozen{fill:var(--card);stroke:var(--accent);stroke-width:1.5}"
    ".kill{stroke:var(--bad);stroke-width:2.4;stroke-linecap:round}.back{fill:var(--good);stroke:var(--card)}"
    ".bar{fill:var(--accent);opacity:.75}.rss{fill:none;stroke-width:1.6}"
    ".daemon{fill:none;stroke-width:1.2;opacity:.8}.over{fill:var(--after)}</style>"
)


def draw(record: Record) -> str:
    """The SVG file's text."""
    x = Axis(0.0, record.ended - record.began)
    lives = Plot(LEFT, 62, WIDE - LEFT - 22, ROW * len(record.workers), x, Axis(0, 1))
    meetings = Plot(LEFT, lives.bottom + 62, lives.width, 110, x, _meetings_axis(record))
    memory = Plot(LEFT, meetings.bottom + 62, lives.width, 200, x, _memory_axis(record))
    size = (WIDE, memory.bottom + 30)
    parts = [
        STYLE,
        f'<rect class="sheet" width="{size[0]:.0f}" height="{size[1]:.0f}"/>',
        _over(record, lives, memory),
        _legend(),
        _lives(record, lives),
        _meetings(record, meetings),
        _memory(record, memory),
    ]
    svg = picture(size, parts, "Kills and freezes, meetings and memory of a soak over time")
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _legend() -> str:
    y = 26.0
    return (
        text((LEFT, y + 4), "lives of the workers", "head")
        + f'<rect fill="{colour(0)}" x="320" y="{y - 6}" width="26" height="{BAR}"/>'
        + text((354, y + 4), "trains")
        + f'<rect class="frozen" x="420" y="{y - 6}" width="26" height="{BAR}"/>'
        + text((454, y + 4), "frozen")
        + _cross(536, y)
        + text((549, y + 4), "killed")
        + _wedge(616, y)
        + text((631, y + 4), "started again")
        + f'<rect class="over" x="734" y="{y - 10}" width="26" height="20"/>'
        + text((768, y + 4), "consensus and serving")
    )


def _over(record: Record, first: Plot, last: Plot) -> str:
    left = first.px(record.trained - record.began)
    return (
        f'<rect class="over" x="{left:.1f}" y="{first.top - 6}" width="{first.right - left:.1f}"'
        f' height="{last.bottom - first.top + 6}"/>'
    )


def _lives(record: Record, plot: Plot) -> str:
    rows = [
        _row(record, worker, plot, (index, plot.top + ROW * (index + 0.5)))
        for index, worker in enumerate(record.workers)
    ]
    return "".join(rows) + _clock(plot)


def _row(record: Record, worker: Worker, plot: Plot, place: tuple[int, float]) -> str:
    index, y = place
    parts = [text((plot.left - 8, y + 4), worker.name, "end tick")]

    def bar(begin: float, end: float, style: str) -> None:
        left, right = plot.px(begin - record.began), plot.px(end - record.began)
        parts.append(
            f'<rect {style} x="{left:.1f}" y="{y - BAR / 2}" width="{right - left:.1f}"'
            f' height="{BAR}"/>'
        )

    for life in worker.lives:
        bar(life.began, life.ended or record.ended, f'fill="{colour(index)}"')
    for begin, end in worker.freezes:
        bar(begin, end, 'class="frozen"')
    for life in worker.lives[1:]:
        parts.append(_wedge(plot.px(life.began - record.began), y))
    parts += [
        _cross(plot.px(life.ended - record.began), y)
        for life in worker.lives
        if life.killed and life.ended is not None
    ]
    return "".join(parts)


def _bins(record: Record) -> list[float]:
    """Meetings per minute; both sides log one."""
    counts = [0.0] * (int((record.ended - record.began) / BIN_S) + 1)
    for worker in record.workers:
        for time, outcome in worker.exchanges:
            if outcome in ("ok", "late") and time >= record.began:
                counts[int((time - record.began) / BIN_S)] += 0.5 * 60 / BIN_S
    return counts


def _meetings_axis(record: Record) -> Axis:
    return Axis(0, 1.1 * max(1.0, *_bins(record)))


def _meetings(record: Record, plot: Plot) -> str:
    parts = [text((plot.left, plot.top - 14), "meetings per minute, all together", "head")]
    parts.append(plot.grid([(value, f"{value:g}") for value in plot.y.ticks(4)]))
    for index, value in enumerate(_bins(record)):
        left, right = plot.px(index * BIN_S), plot.px((index + 1) * BIN_S)
        parts.append(
            f'<rect class="bar" x="{left + 0.5:.1f}" y="{plot.py(value):.1f}"'
            f' width="{max(right - left - 1, 0.5):.1f}"'
            f' height="{plot.bottom - plot.py(value):.1f}"/>'
        )
    return "".join(parts) + _clock(plot)


def _memory_axis(record: Record) -> Axis:
    lives = [life for worker in record.workers for life in worker.lives]
    return Axis(0, 1.1 * max((s.python / 1e6 for life in lives for s in life.samples), default=1))


def _memory(record: Record, plot: Plot) -> str:
    title = "resident memory in MB: workers, and below them their daemons"
    parts = [text((plot.left, plot.top - 14), title, "head")]
    parts.append(plot.grid([(value, f"{value:g}") for value in plot.y.ticks(5)]))
    for index, worker in enumerate(record.workers):
        for life in worker.lives:
            for part, style in (("python", "rss"), ("daemon", "daemon")):
                points = [(s.time - record.began, getattr(s, part) / 1e6) for s in life.samples]
                parts.append(plot.line(points, f'class="{style}" {stroke(index)}'))
    return "".join(parts) + _clock(plot)


def _clock(plot: Plot) -> str:
    return plot.foot([(seconds, clock(seconds)) for seconds in plot.x.clock_ticks(10)])


def _cross(x: float, y: float) -> str:
    return "".join(
        f'<line class="kill" x1="{x - 4:.1f}" x2="{x + 4:.1f}" y1="{y - turn:.1f}"'
        f' y2="{y + turn:.1f}"/>'
        for turn in (5, -5)
    )


def _wedge(x: float, y: float) -> str:
    return f'<path class="back" d="M{x:.1f} {y - 7:.1f}l8 7l-8 7z"/>'
