"""The report of a pipeline: order of its sections and the words between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peers.pipeline import pictures
from peers.pipeline.story import Course, Server
from peers.pipeline.summary import accounted
from peers.report.draw import colour, escape
from peers.report.page import document, pair, section, wide
from peers.report.parts import Bar, bar_chart, card, glossary, nats, sample, share_of, text_card
from peers.units import amount, clock, size

WORDS = (
    ("Sample", "One microbatch. It travels through all stages and back, and every stage counts its "
     "gradient in exactly one step."),
    ("Stage", "Some of the model's layers, held by several peers with equal weights. Each sample "
     "goes to one of them; together they average what they summed, and step."),
    ("Ledger", "The trainers' book beside the stages' book. They are kept by different processes "
     "and have to balance."),
    ("In a step", "The sample became part of a step of every stage: nothing can undo it."),
    ("Sent again", "Attempts beyond the first, because a peer died, was late or was busy. Stages "
     "that had counted the sample already do not count it again."),
    ("Recomputed", "Samples whose kept activations were gone when their gradient came."),
    ("Text read", "What all trainers together have read, in sizes of the text."),
    ("Idle", "Share of its serving time in which a stage peer computed nothing."),
    ("Held-out loss", "Mean cross-entropy in nats per token on text that nobody trained on, of the "
     "checkpoint that the stages were joined into."),
)  # fmt: skip


def page(course: Course, summary: Mapping[str, Any]) -> str:
    """The whole document. Everything that came from peers is escaped where it is written."""
    title = f"Run {course.run}" if course.run else "A pipeline"
    body = [
        f'<p class="tale">{_tale(course, summary)}</p>',
        _cards(summary),
        *(_pictured(course) if course.servers else []),
        pair(
            section("Ledger", "Every sample, from two books.", _ledger(summary)),
            section("Bytes per token", "At one cut, forward or back.", _boundary(summary)),
        ),
        section("Stages", "", _stages(summary)),
        section("Peers", "", _peers(course, summary)),
    ]
    written = sample(course)
    if written:
        said = "The joined model goes on from the coloured prompt."
        body.append(section("What it writes", said, written))
    body.append(section("What the figures mean", "", glossary(WORDS)))
    return document(title, body)


def _pictured(course: Course) -> list[str]:
    legend = pictures.legend(course)
    return [
        section(
            "Who served which stage",
            "Each bar is a peer's life, coloured by its stage; an arrow head is a move that "
            "placement asked for. Trainers are grey.",
            legend + wide(pictures.timeline(course)),
        ),
        pair(
            section("Training loss", "Nats per token.", _figure(pictures.loss(course))),
            section("Throughput", "Tokens per second.", _figure(pictures.throughput(course))),
        ),
        pair(
            section(
                "Queues",
                "Samples that a stage has and has not answered.",
                legend + _figure(pictures.queues(course)),
            ),
            section(
                "Steps",
                "Stages follow each other closely.",
                legend + _figure(pictures.steps(course)),
            ),
        ),
    ]


def _figure(drawn: str) -> str:
    return f'<div class="figure">{drawn}</div>'


def _tale(course: Course, summary: Mapping[str, Any]) -> str:
    """The run in a few sentences."""
    stages, ledger = summary["stages"], summary["ledger"]
    size_of = sum(stage["parameters"] for stage in stages)
    began = sum(not server.joined for server in course.servers)
    trainers = len(course.senders)
    said = [
        f"A model of {amount(size_of)} parameters was cut into {len(stages)} stages and trained "
        f"for {clock(summary['training_seconds'])} by {began} stage peers and "
        f"{trainers} trainer{'s' * (trainers != 1)}, without a leader."
    ]
    for at, words in sorted(_happened(course)):
        said.append(f"At {clock(at - course.began)} {words}.")
    if accounted(summary):
        said.append(f"All {ledger['begun']} samples are in one step of every stage.")
    elif ledger["begun"]:
        said.append(f"Not all of {ledger['begun']} samples are accounted for.")
    merged = summary["eval"]["merged"]
    if merged is not None:
        said.append(f"The joined model reaches {merged:.3f} nats per token on text it never saw.")
    return escape(" ".join(said))


def _happened(course: Course) -> list[tuple[float, str]]:
    """(wall clock, words) of faults and moves."""
    told = []
    for line in course.faults:
        subject = course.name_of(line["subject"])
        words = f"{subject} was killed" if line["kind"] == "kill" else f"{subject} joined"
        for server in course.servers:
            if server.name == subject and server.joined and server.stays:
                words += f" and took stage {server.stays[0].stage}"
        told.append((float(line["time"]), words))
    for server, stay in course.moves():
        words = f"{server.name} moved from stage {stay.left} to stage {stay.stage}"
        told.append((stay.begin, words))
    return told


def _cards(summary: Mapping[str, Any]) -> str:
    ledger, peers, trips = summary["ledger"], summary["peers"], summary["trips"]
    rate, moved = summary["tokens_per_second"], len(summary["migrations"])
    again = ledger["attempts"] - ledger["begun"]
    learned = " to ".join(nats(summary["loss"][end]) for end in ("first", "last"))
    churn = f"{peers['killed']} killed, {peers['joined']} joined, {moved} moved"
    held, apart = summary["memory"], summary["checkpoint"]["logits_difference"]
    same = "of the joined stages" if apart is None else f"logits within {apart:.1g} of the stages'"
    made = [
        card("Held-out loss", nats(summary["eval"]["merged"]), same, lead=True),
        card("Samples", str(ledger["begun"]), f"{ledger['settled']} in steps", lead=True),
        card("Sent again", str(again), f"{ledger['dropped']} after a stage dropped them"),
        card("Training", clock(summary["training_seconds"]), f"{summary['steps']} steps a stage"),
        card("Peers", str(peers["started"]), churn),
        card("Tokens", amount(summary["tokens"]), f"{amount(rate)} per second" if rate else ""),
        card("Training loss", nats(summary["loss"]["last"]), learned),
        card("A trip", _seconds(trips["seconds"]), f"{trips['window'] or '-'} at once"),
        card("Sent", size(summary["bytes_sent"]), "by all together"),
        card("Idle", share_of(summary["stall_fraction"]), "of a stage peer's time"),
        card("Memory", size(held["max"]) if held["max"] else "-", "of the largest"),
        *text_card(summary),
    ]
    return f'<dl class="cards">{"".join(made)}</dl>'


def _ledger(summary: Mapping[str, Any]) -> str:
    ledger = summary["ledger"]
    said = [("begun by trainers", ledger["begun"]), ("in a step of every stage", ledger["settled"])]
    said += [("open at the end", ledger["open"]), ("lost with their trainer", ledger["lost"])]
    for stage in summary["stages"]:
        twice, absent = stage["duplicates"], stage["missing"]
        balance = f"{stage['samples']} ({twice} twice, {absent} missing)"
        said.append((f"in steps of stage {stage['stage']}", balance))
    said.append(("attempts", ledger["attempts"]))
    said += [(f"again: {cause}", count) for cause, count in sorted(ledger["causes"].items())]
    rows = "".join(
        f"<tr><td>{escape(str(what))}</td><td>{escape(str(count))}</td></tr>"
        for what, count in said
    )
    return f'<div class="scroll"><table>{rows}</table></div>'


def _boundary(summary: Mapping[str, Any]) -> str:
    known, tokens = summary["boundary"], max((s["tokens"] for s in summary["stages"]), default=0)
    bars: list[Bar] = []
    if known:
        for name, key in (("float32", "fp32_bytes_per_token"), ("as sent", "bytes_per_token")):
            bars.append((name, known[key], f"{known[key]:.0f} B", "var(--accent)"))
    bars.append(("the id", 4.0, "4 B", "var(--accent)"))
    letters = [
        (f"stage {s['stage']}", s["letter_bytes_per_token"] or 0.0, colour(s["stage"]))
        for s in summary["stages"]
    ]
    measured = [(name, value, f"{value:.0f} B", shade) for name, value, shade in letters]
    meetings = sum(stage["meeting_bytes"] for stage in summary["stages"])
    averaged = f"{size(meetings)} of gradients were sent to average them"
    each = f" ({meetings / tokens:.0f} B a token)" if tokens else ""
    return (
        f"{bar_chart(bars)}<h3>Sent in letters, both ways, per token that counted</h3>"
        f'{bar_chart(measured)}<p class="say">{escape(averaged + each)}.</p>'
    )


def _stages(summary: Mapping[str, Any]) -> str:
    titles = ("stage", "layers", "parameters", "steps", "samples", "busy", "recomputed", "refused")
    rows = []
    for stage in summary["stages"]:
        layers = stage["layers"]
        span = f"{layers[0]} to {layers[-1]}" if layers else "-"
        name = f'<i class="chip" style="background:{colour(stage["stage"])}"></i>{stage["stage"]}'
        cells = [span, amount(stage["parameters"]), str(stage["steps"]), str(stage["samples"])]
        cells += [share_of(stage["busy"]), str(stage["recomputed"]), str(stage["refused"])]
        rows.append((name, [*cells, ", ".join(stage["peers"])]))
    return _table((*titles, "served by"), rows)


def _peers(course: Course, summary: Mapping[str, Any]) -> str:
    titles = ("peer", "", "stages", "steps", "sequences", "sent", "idle", "memory")
    rows = []
    figures = {row["name"]: row for row in summary["servers"]}
    for server in course.servers:
        row = figures[server.name]
        memory = server.finished["memory"] if server.finished else 0
        cells = [_fate(server), ", ".join(map(str, row["stages"])) or "-", str(row["steps"])]
        cells += [str(row["sequences"]), size(row["bytes_sent"]), share_of(row["stall_fraction"])]
        rows.append((escape(server.name), [*cells, size(memory) if memory else "-"]))
    for sender in course.senders:
        memory = sender.finished["memory"] if sender.finished else 0
        sent = size(sender.finished["bytes_sent"]) if sender.finished else "-"
        cells = ["trainer", "-", "-", str(sender.last["begun"]), sent, "-"]
        rows.append((escape(sender.name), [*cells, size(memory) if memory else "-"]))
    return _table(titles, rows)


def _fate(server: Server) -> str:
    fate = "killed" if server.killed is not None else "finished" if server.finished else "left"
    marks = ["joined"] * server.joined + [f"{server.slowdown:g} times slower"] * (
        server.slowdown > 1
    )
    return ", ".join([fate, *marks])


def _table(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The first cell of a row is HTML already."""
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(
        f"<tr><td>{name}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, cells in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
