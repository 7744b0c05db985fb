"""Events: what is written can be read, from any thread, also after a killed writer."""

import dataclasses
import json
import threading
from typing import get_type_hints

import pytest

from swarmnet import events
from swarmnet.events import Event, EventLog, FaultInjected, StepDone, read_events

ENVELOPE = ("time", "peer", "event")
_SAMPLES = {
    str: "text",
    int: 3,
    float: 0.25,
    bool: True,
    list[int]: [3, 4],
    list[str]: ["a", "b"],
    dict[str, int]: {"text": 3},
}


def event_classes() -> list[type[Event]]:
    return sorted(Event.__subclasses__(), key=lambda cls: cls.__name__)


def sample(cls: type[Event]) -> Event:
    hints = get_type_hints(cls)
    return cls(**{field.name: _SAMPLES[hints[field.name]] for field in dataclasses.fields(cls)})


def step(number: int) -> StepDone:
    return StepDone(
        step=number, loss=2.5, lr=1e-3, tokens=1024, progress=0.5, seconds=0.25, stall_s=0.0
    )


def test_every_event_has_its_own_name():
    own = [cls for cls in event_classes() if cls.__module__ == events.__name__]
    names = [cls.name for cls in own]
    assert len(names) == len(set(names)) > 5
    assert all(Event.types[cls.name] is cls for cls in own)


@pytest.mark.parametrize("cls", event_classes())
def test_events_are_frozen_and_leave_the_envelope_alone(cls):
    event = sample(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    assert not set(fields) & set(ENVELOPE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, fields[0], None)


@pytest.mark.parametrize("cls", event_classes())
def test_round_trip(cls, tmp_path):
    path = tmp_path / "deep" / "events.jsonl"
    log = EventLog(path, "amber")
    log.emit(sample(cls))
    log.close()
    (line,) = read_events(path)
    assert line.pop("time") > 0
    assert line.pop("peer") == "amber"
    assert line.pop("event") == cls.name
    assert cls(**line) == sample(cls)


def test_a_torn_last_line_is_skipped(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path, "amber")
    log.emit(step(1))
    log.emit(step(2))
    log.close()
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert [line["step"] for line in read_events(path)] == [1]


def test_a_restart_after_a_torn_line_loses_no_new_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"time": 1.0, "peer": "amber", "event": "st')
    log = EventLog(path, "amber")
    log.emit(step(1))
    log.close()
    assert [line["step"] for line in read_events(path)] == [1]


def test_a_restart_appends(tmp_path):
    path = tmp_path / "events.jsonl"
    for number in (1, 2):
        log = EventLog(path, "amber")
        log.emit(step(number))
        log.close()
    assert [line["step"] for line in read_events(path)] == [1, 2]
    assert path.read_bytes().count(b"\n") == 2


def test_lines_of_another_kind_are_skipped(tmp_path):
    path = tmp_path / "events.jsonl"
    lines = ["[1, 2]", '"step"', '{"event": "unknown"}', "", '{"event": ["step"]}', "\x00"]
    path.write_text("\n".join(lines) + "\n")
    assert list(read_events(path)) == []


def test_threads_do_not_tear_each_others_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path, "amber")
    heard = []
    log.listen(heard.append)
    start = threading.Barrier(4)

    def write(first: int) -> None:
        start.wait()
        for number in range(first, first + 250):
            log.emit(step(number))

    threads = [threading.Thread(target=write, args=(250 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    written = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert sorted(written) == list(range(1000))
    assert sorted(line["step"] for line in heard) == list(range(1000))


def test_listeners_hear_only_later_events_and_need_no_file():
    log = EventLog(None, "amber")
    heard = []
    log.emit(FaultInjected(kind="kill", subject="basil"))
    log.listen(heard.append)
    log.emit(FaultInjected(kind="join", subject="cedar"))
    assert [line["subject"] for line in heard] == ["cedar"]


def test_emitting_after_close_is_harmless(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path, "amber")
    log.close()
    log.close()
    log.emit(step(1))
    assert list(read_events(path)) == []


class Full:
    """A file on a disk that takes ``room`` more bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, line):
        taken = line[: self.room]
        self.room -= len(taken)
        if not taken:
            raise OSError(28, "No space left on device")
        return self.file.write(taken)

    def close(self):
        self.file.close()


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_full_disk_costs_the_lines_of_that_time_and_no_more(tmp_path, room):
    path = tmp_path / "events.jsonl"
    log = EventLog(path, "amber")
    log.emit(step(1))
    log._file = Full(log._file, room)
    log.emit(step(2))
    log.emit(step(3))
    log._file.room = 10_000
    log.emit(step(4))
    log.emit(step(5))
    log.close()
    assert [line["step"] for line in read_events(path)] == [1, 4, 5]
