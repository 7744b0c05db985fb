"""What children read of a storm, and what a node does about it."""

from __future__ import annotations

import asyncio
import sys
import time
from types import ModuleType

import pytest

from peers.storm import weather, wrongclock
from peers.storm.weather import Line, Weather
from peers.storm.weathered import Sky
from swarmnet.errors import LinkError, StreamCut
from swarmnet.wire import Frame, Kind


class Quiet:
    """A stream that says and hears the same frame for ever."""

    def __init__(self, peer):
        self.peer = peer
        self.closed = False

    async def send(self, frame, deadline_s):
        assert not self.closed

    async def receive(self, deadline_s, into=None):
        return Frame(Kind.PART, b"x" * 100)

    async def close(self):
        self.closed = True


def test_it_is_read_as_it_was_written(tmp_path):
    told = Weather(frozenset("ab"), {"c": Line(1e5, 0.2)}, {"d": -600.0})
    weather.write(tmp_path / "weather.json", told)
    assert weather.read(tmp_path / "weather.json") == told
    assert told.walled("a", "c")
    assert not told.walled("a", "b")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"far": 3}', '{"far": [], "lines": {"a": {}}, "clocks": {}}']
)
def test_what_cannot_be_read_changes_nothing(tmp_path, text):
    path = tmp_path / "weather.json"
    assert weather.read(path) is None
    path.write_text(text)
    assert weather.read(path) is None


def test_nobody_reaches_beyond_the_wall_and_open_streams_break():
    async def main():
        sky = Sky("me")
        near, far = sky.over(Quiet("near")), sky.over(Quiet("far"))
        sky.now = Weather(frozenset({"far"}))
        await near.send(Frame(Kind.PART, b""), 1.0)
        for call in (far.send(Frame(Kind.PART, b""), 1.0), far.receive(1.0)):
            with pytest.raises(StreamCut):
                await call
        with pytest.raises(LinkError):
            sky.check("far")
        sky.check("near")
        await sky.sever()
        assert (near._inner.closed, far._inner.closed) == (False, True)

    asyncio.run(main())


def test_a_wrong_clock_is_wrong_under_any_name_and_the_log_stays_right(monkeypatch):
    module = ModuleType("holds_the_clock")
    module.now = time.time
    monkeypatch.setitem(sys.modules, "holds_the_clock", module)
    clock = wrongclock.WrongClock()
    changed = clock.install()
    try:
        clock.ahead_s = 600.0
        assert module.now is clock
        assert time.time() - sys.modules["swarmnet.events"].WALL() > 599
    finally:
        for holder, name in changed:
            setattr(holder, name, wrongclock._true)
    assert time.time is wrongclock._true
