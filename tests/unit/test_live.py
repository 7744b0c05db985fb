"""The live view hears events and shows the swarm."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peers.console import notable
from peers.live import LiveView
from peers.units import amount, clock, percent, printable, short, size
from swarmnet.events import (
    CheckpointWritten,
    ClockOff,
    FaultInjected,
    PathSeen,
    PeerFinished,
    PeerStarted,
    ReachSeen,
    StateTaken,
    StepDone,
)
from tests.unit.synthetic import T0, fake_run, record


def shown(view, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view.render())
    return console.file.getvalue()


def told(events):
    view = LiveView("demo")
    for event in events:
        view.update(event)
    return view


@pytest.fixture(scope="module")
def events():
    return fake_run()


def until(events, step):
    last = max(i for i, e in enumerate(events) if e["event"] == "step" and e["step"] == step)
    return events[: last + 1]


def test_before_anything_happened_it_says_so():
    view = LiveView("demo")
    assert "nobody yet" in shown(view)
    assert "nobody yet" in view.plain_line()


def test_midway_it_shows_states_partners_and_progress(events):
    view = told(until(events, 300))
    text = shown(view)
    assert "75%" in text
    assert text.count("training") == 5
    assert "killed" in text
    assert "id-worker" not in text
    assert "bootstrap" not in text
    assert "worker-3 was killed at 33 % of the run" in text
    assert "worker-5 took its state" in text
    line = view.plain_line()
    assert "4 training, 1 killed" in line
    assert "12.7 steps/s" in line
    assert "\n" not in line


def test_at_the_end_everybody_finished_and_agreed(events):
    view = told(events)
    assert "4 finished, 1 killed" in view.plain_line()
    assert view.progress == 1.0
    assert "consensus: learning stops, replicas average" in " ".join(view.notes())
    assert "held-out loss of the merged model: 1.897" in " ".join(view.notes())


def test_it_fits_eighty_columns_without_cutting_a_figure(events):
    text = shown(told(until(events, 300)), width=80)
    table = [row for row in text.splitlines() if "worker-" in row and "/" in row]
    assert len(table) == 5
    assert not any("\N{HORIZONTAL ELLIPSIS}" in row for row in table)


def test_text_of_peers_is_neither_markup_nor_a_terminal_command():
    evil = "[red]x\x1b[2J"
    view = LiveView(evil)
    view.update(record(T0, evil, PeerStarted("worker", "r", "f", "id")))
    view.update(record(T0 + 1, evil, StepDone(1, float("nan"), 1e-3, 8, 0.5, 0.3, 0.0)))
    view.update(record(T0 + 2, evil, CheckpointWritten(1, 0.1, 10, error=evil)))
    text = shown(view) + view.plain_line()
    assert "[red]x" in text
    assert "\x1b" not in text


def test_a_killed_peer_stays_killed_until_it_starts_again():
    step = record(T0 + 3, "w", StepDone(1, 2.0, 1e-3, 8, 0.5, 0.3, 0.0))
    view = told(
        [
            record(T0, "w", PeerStarted("worker", "r", "f", "id")),
            record(T0 + 2, "demo", FaultInjected("kill", "w")),
            step,
        ]
    )
    assert "1 killed" in view.plain_line()
    view.update(record(T0 + 4, "w", PeerStarted("worker", "r", "f", "id")))
    view.update(step)
    assert "1 training" in view.plain_line()


def test_a_slowed_peer_is_announced_as_such():
    view = told([record(T0, "w", PeerStarted("worker", "r", "f", "id", slowdown=10.0))])
    assert view.notes() == ["0:00  w is slowed 10 times on purpose"]


def test_stall_is_shown_as_a_share_of_the_training_time():
    view = told([record(T0 + n, "w", StepDone(n, 2.0, 1e-3, 8, 0.5, 1.0, 0.25)) for n in (1, 2)])
    assert "25 %" in shown(view)


def test_units_read_well():
    assert [clock(7.9), clock(750), clock(3723), clock(-1)] == ["0:07", "12:30", "1:02:03", "0:00"]
    assert [size(0), size(999), size(3_600_000), size(2.5e9)] == [
        "0 B",
        "999 B",
        "3.6 MB",
        "2.5 GB",
    ]
    assert [amount(400), amount(890_000), amount(1.56e6)] == ["400", "890 k", "1.6 M"]
    assert [percent(0.0123), percent(0.5), percent(0)] == ["1.2 %", "50 %", "0.0 %"]
    assert [short(0.00605), short(3.1e-4), short(0)] == ["0.00605", "3.1e-4", "0"]
    assert printable("a\x07b" * 20, 5) == "a\N{MIDDLE DOT}ba\N{HORIZONTAL ELLIPSIS}"


def test_paths_and_clocks_are_noted_when_they_are_out_of_the_ordinary():
    view = LiveView("demo")
    relay, hidden = "12D3KooWrelay", "12D3KooWhidden"
    story = [
        PeerStarted("worker", "demo", "ab", "12D3KooWme"),
        ReachSeen("private", [relay]),
        PathSeen(relay, "direct"),
        PathSeen(hidden, "relayed", relay),
        PathSeen(hidden, "direct"),
        ClockOff(-600.0, 3),
    ]
    for second, event in enumerate(story):
        view.update(record(T0 + second, "me", event))
    notes = [note.split("  ", 1)[1] for note in view.notes()]
    assert notes == [
        "others cannot connect to this computer: it is reached through 1 relay",
        f"me reaches {hidden} through the relay {relay}",
        f"me had {hidden} through a relay, reaches it directly now",
        "this computer's clock is about 10 minutes behind those of 3 other peers: set it",
    ]


def test_a_frozen_peer_is_shown_as_frozen_until_it_goes_on():
    view = LiveView("storm")
    for event in (
        record(T0, "w", PeerStarted("worker", "r", "f", "id-w")),
        record(T0 + 1, "w", StepDone(1, 2.0, 1e-3, 8, 0.1, 0.9, 0.0)),
        record(T0 + 2, "demo", FaultInjected("freeze", "w", seconds=3.0, number=1)),
        record(T0 + 3, "w", StepDone(2, 2.0, 1e-3, 8, 0.1, 0.9, 0.0)),
    ):
        view.update(event)
    assert "1 frozen" in view.plain_line()
    view.update(record(T0 + 5, "demo", FaultInjected("freeze", "w", over=True, number=1)))
    assert "1 training" in view.plain_line()
    assert "w goes on after a freeze" in view.notes()[-1]


def finished(reason):
    figures = {"steps": 2, "tokens": 16, "ok": 0, "solo": 0, "failed": 0, "bytes_sent": 0}
    return PeerFinished(reason=reason, **figures, train_s=1.0, stall_s=0.0)


@pytest.mark.parametrize(("reason", "share"), [("finished", "100%"), ("left: SIGTERM", "25%")])
def test_only_who_saw_the_end_of_the_run_shows_all_of_it(reason, share):
    view = LiveView("demo")
    view.update(record(T0, "w", PeerStarted("worker", "r", "f", "id-w")))
    view.update(record(T0 + 1, "w", StepDone(1, 2.0, 1e-3, 8, 0.25, 0.9, 0.0)))
    view.update(record(T0 + 2, "w", finished(reason)))
    assert share in view.plain_line()


def test_what_the_owner_of_a_process_should_read_is_one_line():
    def said(event):
        return notable(record(T0, "w", event))

    taken = StateTaken("donor", 9, "ab", bytes=3_000_000, donors=2, followed=4)
    assert said(taken) == "took its state from 2 donors, 3.0 MB, then 4 steps one by one: at step 9"
    assert said(StateTaken("checkpoint", 7, "ab")) == "goes on from its own checkpoint, at step 7"
    assert said(StateTaken("seed", 0, "ab")) is None
    assert "the run is over" in said(finished("finished"))
    assert said(finished("left: SIGTERM")) is None
