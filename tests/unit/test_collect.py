"""Following event files while other processes write them."""

from __future__ import annotations

import json

from peers.collect import MAX_READ_BYTES, Tail, merge, parse
from swarmnet.events import DaemonRestarted, EventLog, FaultInjected, read_events
from tests.unit.synthetic import fake_run, record, write_run


def line(time, peer="w1"):
    return json.dumps(record(time, peer, DaemonRestarted(1.0))) + "\n"


def log_of(folder, peer):
    path = folder / "peers" / peer / "events.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_folder_of_nothing_has_no_events(tmp_path):
    assert Tail(tmp_path / "nowhere").poll() == []


def test_poll_gives_new_events_of_all_peers_in_time_order(tmp_path):
    tail = Tail(tmp_path)
    log_of(tmp_path, "a").write_text(line(3, "a") + line(5, "a"))
    log_of(tmp_path, "b").write_text(line(4, "b"))
    assert [(e["time"], e["peer"]) for e in tail.poll()] == [(3, "a"), (4, "b"), (5, "a")]
    assert tail.poll() == []
    log_of(tmp_path, "c").write_text(line(1, "c"))
    assert [e["peer"] for e in tail.poll()] == ["c"]


def test_a_torn_line_waits_until_it_is_complete_at_every_byte(tmp_path):
    whole = line(1).encode()
    for cut in range(len(whole)):
        path = log_of(tmp_path / str(cut), "w1")
        path.write_bytes(whole[:cut])
        tail = Tail(tmp_path / str(cut))
        assert tail.poll() == []
        with path.open("ab") as file:
            file.write(whole[cut:])
        assert [e["time"] for e in tail.poll()] == [1]


def test_a_peer_that_comes_back_writes_behind_its_own_torn_line(tmp_path):
    log_of(tmp_path, "w1").write_text(line(1)[:-20] + line(2) + line(3))
    assert [e["time"] for e in Tail(tmp_path).poll()] == [2, 3]


def test_lines_that_are_no_events_are_skipped():
    good = line(1).encode()
    assert parse(good) is not None
    event = json.loads(good)
    bad = [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"[" * 100_000,
        json.dumps(event | {"event": "unheard_of"}).encode(),
        json.dumps(event | {"event": ["step"]}).encode(),
        json.dumps(event | {"time": "noon"}).encode(),
        json.dumps(event | {"time": float("nan")}).encode(),
        json.dumps(event | {"peer": 7}).encode(),
        json.dumps({k: v for k, v in event.items() if k != "seconds"}).encode(),
    ]
    assert [parse(text) for text in bad] == [None] * len(bad)


def test_an_endless_line_is_not_held_in_memory(tmp_path):
    path = log_of(tmp_path, "w1")
    path.write_bytes(b"x" * MAX_READ_BYTES)
    tail = Tail(tmp_path)
    assert tail.poll() == []
    with path.open("a") as file:
        file.write("\n" + line(9))
    assert [e["time"] for e in tail.poll()] == [9]


def test_an_event_log_is_followed_as_it_is_written(tmp_path):
    log = EventLog(log_of(tmp_path, "w1"), "w1")
    tail = Tail(tmp_path)
    for count in range(3):
        log.emit(DaemonRestarted(float(count)))
        assert [e["seconds"] for e in tail.poll()] == [count]
    log.close()


def test_merge_writes_all_events_sorted_and_returns_them(tmp_path):
    events = fake_run(steps=40)
    write_run(tmp_path, events)
    out = tmp_path / "events.jsonl"
    merged = merge(tmp_path, out)
    assert merged == list(read_events(out))
    assert [e["time"] for e in merged] == [e["time"] for e in events]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "peers"]


def test_what_was_done_on_purpose_is_read_from_its_own_file(tmp_path):
    fault = record(4.0, "demo", FaultInjected("freeze", "a", seconds=3.0, number=7))
    (tmp_path / "faults.jsonl").write_text(json.dumps(fault) + "\n")
    log_of(tmp_path, "a").write_text(line(3, "a") + line(5, "a"))
    assert [event["time"] for event in merge(tmp_path, tmp_path / "events.jsonl")] == [3, 4, 5]
    assert json.loads((tmp_path / "events.jsonl").read_text().splitlines()[1]) == fault
