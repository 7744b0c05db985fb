"""Parts of the report that are HTML rather than pictures: cards, bars, tables, words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from peers.mishaps import counted, happened
from peers.pipeline.story import Course
from peers.report.draw import colour, escape, stroke
from peers.story import Story, Worker
from peers.units import amount, clock, percent, short, size

MOST_IN_MATRIX = 16
MOST_TOLD = 8
SAMPLE_LETTERS = 6000

Bar = tuple[str, float, str, str]

GLOSSARY = (
    ("Held-out loss", "Mean cross-entropy in nats per token on text that no peer trained on; lower "
     "is better. A uniform guess over 256 bytes is 5.55 nats."),
    ("Merged model", "The mean of all replicas after the consensus phase: what model/ holds."),
    ("One worker alone", "The same training without a swarm, for as many steps as the median "
     "surviving worker took, and for more. The speed-up is how many times more steps "
     "one worker alone needs for the merged model's loss."),
    ("Exchange", "Two peers send each other their weights and both step towards the mean. "
     "“ok” counts meetings, “solo” windows in which a peer found nobody, "
     "“failed” the sides of a meeting that broke."),
    ("Stall", "Share of training time in which a worker waited for the network."),
    ("Exchange cost", "1 - (step rate while exchanging) / (step rate without exchanges), for the "
     "same processes on the same machine."),
    ("Disagreement", "Root mean square distance of a replica's weights from the mean of all "
     "replicas, per parameter. During training it is estimated from the distance of the "
     "pairs that meet."),
    ("Consensus phase", "After the last step, with no more learning, the replicas average in "
     "scheduled pairs until they agree."),
    ("Text read", "What all workers together have read, in sizes of the text; “twice” is what two "
     "of them read in one epoch, because somebody came, left or died."),
    ("Took part", "Share of living peers that completed an exchange in the time of one and a half "
     "windows; in brackets those to whom nothing was done meanwhile."),
    ("Sent", "Bytes of exchanges and of state given to joiners, as counted by the sender."),
    ("Learning rate", "Of the local optimizer; it follows the progress of the whole run, so a late "
     "joiner falls in step."),
)  # fmt: skip


def tale(story: Story, summary: Mapping[str, Any]) -> str:
    """The run in a few sentences."""
    peers = summary["peers"]
    sizes = {worker.parameters for worker in story.workers if worker.parameters}
    model = f"a model of {amount(max(sizes))} parameters" if sizes else "a model"
    duration = clock(story.trained_until - story.began)
    workers = f"{peers['started']} worker{'s' * (peers['started'] != 1)}"
    said = [f"{workers} trained {model} together for {duration}, without a leader."]
    said += [
        f"{worker.name} was {worker.slowdown:g} times slower than the machine allows."
        for worker in story.workers
        if worker.slowdown > 1
    ]
    said += _befell(story, summary)
    merged = summary["eval"]["merged"]
    if merged is not None:
        said.append(f"The merged model reaches {merged:.3f} nats per token on text it never saw.")
    return escape(" ".join(said))


def _befell(story: Story, summary: Mapping[str, Any]) -> list[str]:
    """Each fault in a sentence, or all in one where there are many."""
    if len(story.faults) > MOST_TOLD:
        said = f"It weathered {counted(summary['faults'])}"
        back = summary["recovery"]["resume_s"]["median"]
        return [f"{said}; who came back took its next step {back:.1f} s after the kill." if back
                else f"{said}."]  # fmt: skip
    told = []
    for line in story.faults:
        subject, at = story.name_of(line["subject"]), clock(line["time"] - story.began)
        more = ""
        if line["kind"] == "kill" and not line["over"]:
            more = ", and the others went on"
        elif line["kind"] == "join":
            took = next((w.took for w in story.workers if w.name == subject), None)
            more = f", with the state of a peer in {took['seconds']:.1f} s" if took else ""
        told.append(f"At {at} {subject} {happened(line)}{more}.")
    return told


def cards(summary: Mapping[str, Any]) -> str:
    """The headline figures."""
    ends, peers, met = summary["eval"], summary["peers"], summary["exchanges"]
    apart, rate, held = summary["disagreement"], summary["tokens_per_second"], summary["memory"]
    learned = " to ".join(nats(summary["loss"][end]) for end in ("first", "last"))
    took = summary["participation"]
    churn = f"{peers['killed']} killed, {peers['joined']} joined"
    made = [
        card("Held-out loss", nats(ends["merged"]), "merged, nats per token", lead=True),
        card("Training", clock(summary["training_seconds"]), f"{summary['steps']} steps a worker"),
        card("Workers", str(peers["started"]), churn),
        card("Tokens", amount(summary["tokens"]), f"{amount(rate)} per second" if rate else ""),
        card("Training loss", nats(summary["loss"]["last"]), learned),
        card("Exchanges", str(met["ok"]), f"{met['solo']} solo, {met['failed']} failed"),
        card("Sent", size(summary["bytes_sent"]), "by all together"),
        card("Stall", share_of(summary["stall_fraction"]), "of training time"),
        card("View", seconds_of(summary["view_age_s"]["median"]), "median age of who is alive"),
        card("Exchange cost", share_of(summary["exchange_cost"]), "of the step rate"),
        card("Disagreement", short_of(apart["last"]), f"{short_of(apart['first'])} at first"),
        card("Took part", share_of(took["alive"]), f"of the living ({share_of(took['able'])})"),
        card("Memory", size(held["max"]) if held["max"] else "-", "of the largest"),
    ]
    made += text_card(summary)
    if "speedup" in summary:
        shown = str(summary["speedup"]).replace(">=", "\N{GREATER-THAN OR EQUAL TO} ")
        if isinstance(summary["speedup"], int | float):
            shown = f"{summary['speedup']:.2f}"
        times = f"{shown}\N{MULTIPLICATION SIGN}"
        made.insert(1, card("Speed-up", times, "over one worker", lead=True))
    return f'<dl class="cards">{"".join(made)}</dl>'


def legend(story: Story) -> str:
    """Names of the workers beside their line styles."""
    items = [
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><line x1="0" x2="26" y1="5" y2="5"'
        f' stroke-width="3" {stroke(index)}/></svg>{escape(worker.name)}</li>'
        for index, worker in enumerate(story.workers)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def strip_legend() -> str:
    marks = (
        ('<rect x="4" width="18" height="10" rx="2" fill="var(--peer-0)"/>', "met (darker: more)"),
        ('<circle cx="13" cy="5" r="3.6" class="solo"/>', "solo: found nobody"),
        ('<path class="failed" d="M9 1l8 8m0 -8l-8 8"/>', "failed or killed"),
    )
    items = [
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true">{mark}</svg>{words}</li>'
        for mark, words in marks
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def matrix(story: Story) -> str:
    """Meetings of every pair as a table of shades."""
    workers = story.workers[:MOST_IN_MATRIX]
    counts = {
        (one.name, other.name): story.met(one, other)
        for one in workers
        for other in workers
        if one is not other
    }
    most = max(counts.values(), default=0)
    if not most:
        return '<p class="say">Nobody met.</p>'
    head = "".join(f"<th>{escape(_tail(w.name))}</th>" for w in workers)
    rows = [f"<tr><th></th>{head}</tr>"]
    for one in workers:
        cells = [_cell(counts.get((one.name, other.name)), most) for other in workers]
        rows.append(f"<tr><th>{escape(one.name[:18])}</th>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table class="met">{"".join(rows)}</table></div>'


def held_out(story: Story, summary: Mapping[str, Any]) -> str:
    """Held-out losses as bars from zero: the merged model, each replica, workers alone."""
    losses = story.held_out()
    merged = losses.pop("merged", math.nan)
    bars: list[Bar] = []
    if math.isfinite(merged):
        bars.append(("merged", merged, f"{merged:.3f}", "var(--accent)"))
    places = {worker.name: index for index, worker in enumerate(story.workers)}
    others = sorted(losses.items(), key=lambda item: places[item[0]])
    named = [(name, loss, colour(places[name])) for name, loss in others]
    for label, entry in summary.get("solo", {}).items():
        if isinstance(entry, Mapping) and isinstance(entry.get("loss"), int | float):
            name = f"alone, {entry['steps']} steps" if "steps" in entry else f"alone, {label}"
            named.append((name, float(entry["loss"]), "var(--base)"))
    for name, loss, shade in named:
        apart = f" ({loss - merged:+.3f})" if math.isfinite(merged) else ""
        if math.isfinite(loss):
            bars.append((name, loss, f"{loss:.3f}{apart}", shade))
    return bar_chart(bars) if bars else '<p class="say">Nothing was evaluated.</p>'


def traffic(story: Story) -> str:
    """Step rate, bytes sent and stall of every worker."""
    rates: list[Bar] = []
    sent: list[Bar] = []
    stall: list[Bar] = []
    for index, worker in enumerate(story.workers):
        shade = colour(index)
        rates.append((worker.name, worker.step_rate, f"{worker.step_rate:.2f} /s", shade))
        sent.append((worker.name, worker.bytes_sent, size(worker.bytes_sent), shade))
        share = worker.stall_fraction or 0.0
        stall.append((worker.name, share, percent(share), shade))
    charts = (("Steps per second", rates), ("Bytes sent", sent), ("Time stalled", stall))
    drawn = (f"<div><h3>{title}</h3>{bar_chart(bars)}</div>" for title, bars in charts)
    return f'<div class="three">{"".join(drawn)}</div>'


def bar_chart(bars: Sequence[Bar]) -> str:
    """Horizontal bars from zero: (name, value, shown value, colour) each."""
    most = max((bar[1] for bar in bars), default=0.0) or 1.0
    rows = [
        f'<span>{escape(name[:24])}</span><span class="track"><i style="width:'
        f'{100 * value / most:.1f}%;background:{shade}"></i></span><span>{escape(shown)}</span>'
        for name, value, shown, shade in bars
    ]
    return f'<div class="bars">{"".join(rows)}</div>'


def sample(told: Story | Course) -> str:
    """What the merged model wrote, its prompt coloured."""
    if told.sample is None:
        return ""
    prompt, words = str(told.sample["prompt"]), str(told.sample["text"])[:SAMPLE_LETTERS]
    return f"<pre><b>{escape(prompt)}</b>{escape(words.removeprefix(prompt))}</pre>"


def peer_table(story: Story) -> str:
    """All workers with their figures."""
    titles = ("peer", "", "trained", "steps", "loss", "held-out", "ok", "solo", "failed", "sent",
              "stall", "memory", "device")  # fmt: skip
    head = "".join(f"<th>{title}</th>" for title in titles)
    losses = story.held_out()
    rows = [
        _peer_row(story, worker, index, losses.get(worker.name))
        for index, worker in enumerate(story.workers)
    ]
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def glossary(entries: Sequence[tuple[str, str]] = GLOSSARY) -> str:
    """What the words of the page mean."""
    words = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in entries)
    return f'<dl class="words">{words}</dl>'


def _peer_row(story: Story, worker: Worker, index: int, held: float | None) -> str:
    left = "finished" if worker.finished else "left"
    state = left if worker.survived else "killed"
    last = [line["loss"] for line in worker.steps[-20:] if math.isfinite(line["loss"])]
    begin = worker.steps[0]["time"] - worker.steps[0]["seconds"] if worker.steps else story.began
    memory = worker.finished["memory"] if worker.finished else 0
    cells = [
        f"{clock(begin - story.began)} - {clock(worker.ended - story.began)}",
        str(len(worker.steps)),
        f"{sum(last) / len(last):.3f}" if last else "-",
        nats(held),
        str(len(worker.outcomes("ok", "late"))),
        str(len(worker.outcomes("solo"))),
        str(len(worker.outcomes("failed"))),
        size(worker.bytes_sent),
        share_of(worker.stall_fraction),
        size(memory) if memory else "-",
        worker.device or "-",
    ]
    name = f'<i class="chip" style="background:{colour(index)}"></i>{escape(worker.name)}'
    marks = ["joined"] * worker.joined
    if worker.slowdown > 1:
        marks.append(f"{worker.slowdown:g}\N{MULTIPLICATION SIGN} slower")
    more = "".join(f' <span class="tag">{mark}</span>' for mark in marks)
    tags = f'<td class="word"><span class="tag {state}">{state}</span>{more}</td>'
    body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td>{name}</td>{tags}{body}</tr>"


def text_card(summary: Mapping[str, Any]) -> list[str]:
    """How much of the text was read, where that is known."""
    read = summary["data"]
    if read is None:
        return []
    twice = f"{percent(read['duplication'])} of it twice"
    return [card("Text read", f"{read['epochs']:.2f} epochs", twice)]


def card(title: str, value: str, more: str, lead: bool = False) -> str:
    """One headline figure."""
    return (
        f'<div class="card{" lead" if lead else ""}"><dt>{escape(title)}</dt>'
        f'<dd class="value">{escape(value)}</dd><dd class="more">{escape(more)}</dd></div>'
    )


def _cell(count: int | None, most: int) -> str:
    if count is None:
        return "<td></td>"
    share = 6 + 49 * count / most
    shade = f"background:color-mix(in srgb,var(--accent) {share:.0f}%,var(--card))"
    return f'<td class="cell" style="{shade}">{count}</td>'


def _tail(name: str) -> str:
    return name if len(name) <= 9 else "\N{HORIZONTAL ELLIPSIS}" + name[-8:]


def nats(loss: float | None) -> str:
    return "-" if loss is None or not math.isfinite(loss) else f"{loss:.3f}"


def seconds_of(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def share_of(share: float | None) -> str:
    return "-" if share is None else percent(share)


def short_of(value: float | None) -> str:
    return "-" if value is None else short(value)
