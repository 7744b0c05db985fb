"""The report is one safe, self-contained page whatever the events hold."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from peers.report import write_report
from peers.report.draw import Axis, escape, smooth, thin
from peers.summary import Extra, summarise
from swarmnet.events import FaultInjected, PeerStarted, SampleWritten, StepDone
from tests.unit.synthetic import T0, begin_at, fake_run, record

VOID = {"meta", "br", "input"}
EVIL = "<script>alert('x')</script>&\"\x1b[31m"


class Reader(HTMLParser):
    """Collects tags and text, and insists that every tag is closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.tags = []
        self.links = []
        self.words = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(tmp_path, events, extra=None):
    path = tmp_path / "report.html"
    write_report(path, events, summarise(events, extra))
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return text, reader


@pytest.fixture(scope="module")
def events():
    return fake_run()


def test_the_page_is_whole_small_and_loads_nothing(tmp_path, events):
    text, reader = read(tmp_path, events, Extra(begin_at=begin_at(400)))
    assert len(text) < 1_500_000
    assert reader.links == []
    assert reader.tags.count("script") == 2, "the figures of the replay, and what moves it"
    assert not re.search(r"https?:|url\(|@import", text)
    assert reader.tags.count("svg") >= 4
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_it_shows_the_figures_the_faults_and_the_sample(tmp_path, events):
    solo = {"T": {"steps": 400, "loss": 2.05}, "note": "recorded"}
    extra = Extra(begin_at=begin_at(400), solo=solo, speedup=1.42)
    words = " ".join(read(tmp_path, events, extra)[1].words)
    for shown in ("1.897", "worker-3 killed", "worker-5 joins", "alone, 400 steps", "5.0 %"):
        assert shown in words
    assert "1.42\N{MULTIPLICATION SIGN}" in words
    assert "<b>one</b> & only" in words


def test_a_worker_slowed_on_purpose_is_marked(tmp_path):
    events = fake_run(steps=60)
    next(e for e in events if e["event"] == "peer_started" and e["peer"] == "worker-2")[
        "slowdown"
    ] = 10.0
    words = " ".join(read(tmp_path, events)[1].words)
    assert "10\N{MULTIPLICATION SIGN} slower" in words
    assert "worker-2 was 10 times slower" in words


def test_text_of_peers_is_escaped_everywhere(tmp_path):
    events = fake_run(steps=60)
    for line in events:
        for key in ("peer", "subject"):
            if line.get(key) in ("worker-1", "worker-3"):
                line[key] += EVIL
        if line["event"] == "peer_started":
            line |= {"run": EVIL, "device": EVIL}
        if line["event"] == "sample":
            line |= {"prompt": EVIL, "text": EVIL + "\udc80"}
    text, reader = read(tmp_path, events)
    assert reader.tags.count("script") == 2
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert any("<script>" in word for word in reader.words)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0, -1.0])
def test_odd_losses_still_make_a_page(tmp_path, loss):
    events = [record(T0, "w", PeerStarted("worker", "odd", "f", "id"))]
    for number in range(1, 30):
        value = loss if number % 2 else 2.0
        events.append(record(T0 + number, "w", StepDone(number, value, 1e-3, 8, 0.1, 0.9, 0.0)))
    read(tmp_path, events)


def test_a_run_without_anything_still_makes_a_page(tmp_path):
    read(tmp_path, [])
    read(tmp_path, [record(T0, "w", PeerStarted("worker", "r", "f", "id"))])
    read(tmp_path, [record(T0, "d", FaultInjected("kill", "w"))])
    read(tmp_path, [record(T0, "d", SampleWritten("", "text"))])


def test_a_large_swarm_and_a_long_run_stay_small(tmp_path):
    events = [
        record(T0 + number, f"w{peer}", StepDone(number, 2.0, 1e-3, 8, 0.1, 0.9, 0.0))
        for peer in range(30)
        for number in range(1, 1500)
    ]
    assert len(read(tmp_path, events)[0]) < 1_500_000


def test_ticks_are_round_and_inside():
    assert Axis(0, 10).ticks(5) == [0, 2, 4, 6, 8, 10]
    assert Axis(1.7, 6, log=True).ticks(7) == [2, 2.5, 3, 4, 5, 6]
    assert Axis(1e-5, 1, log=True).ticks(6) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])
    assert Axis(0, 130).clock_ticks(9) == [0, 15, 30, 45, 60, 75, 90, 105, 120]
    assert Axis(2, 2).share(2) == 0.5


def test_smoothing_keeps_a_constant_and_skips_what_is_not_finite():
    points = [(float(x), 3.0 if x % 2 else math.nan) for x in range(10)]
    assert [y for _, y in smooth(points, 0.9)] == pytest.approx([3.0] * 5)


def test_thinning_keeps_both_ends():
    points = [(float(x), 0.0) for x in range(1001)]
    kept = thin(points, 100)
    assert len(kept) <= 101
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thin([], 5) == []


def test_escape_shows_what_cannot_be_seen():
    assert escape("a\x00<\n") == "a\N{REPLACEMENT CHARACTER}&lt;\n"
