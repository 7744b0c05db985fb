"""A peer's own page: what it says, whom it obeys, whom it does not."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.error import HTTPError

import pytest

from peers.station import Station
from peers.status.facts import Facts
from peers.status.server import Page
from swarmnet.config import PeerConfig, load_peer
from swarmnet.errors import AddressError, ConfigError
from swarmnet.events import ExchangeDone, PeerStarted, StateAwaited, read_events
from swarmnet.exchange.membership import Status

ASKED = {"X-Swarmnet": "1"}


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station.open(tmp_path, "ann", PeerConfig(status="127.0.0.1:0"))
    status = Status(incarnation=1, counter=1, state="training")
    station.net.run(Page(station, lambda: status).open())
    yield station
    station.close()


def ask(
    station: Station, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, str]:
    [opened] = [e for e in read_events(station.out / "events.jsonl") if e["event"] == "page_opened"]
    request = urllib.request.Request(opened["url"] + path, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5.0) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_page_needs_nobody_else(station: Station) -> None:
    code, page = ask(station, "")
    assert code == 200
    assert "http://" not in page
    assert "https://" not in page
    assert ask(station, "page.js")[0] == 200
    assert ask(station, "events.jsonl")[0] == 404


def test_the_status_is_what_the_events_say(station: Station) -> None:
    station.log.emit(PeerStarted(role="worker", run="demo", fingerprint="ab", peer_id="me"))
    station.log.emit(ExchangeDone(phase="train", outcome="ok", partner="bob", round=1))
    code, text = ask(station, "status")
    said = json.loads(text)
    assert code == 200
    assert (said["name"], said["role"], said["state"]) == ("ann", "worker", "joining")
    assert said["exchanges"] == {"ok": 1}
    assert said["recent"][0]["partner"] == "bob"
    assert "1 starting" in said["line"]
    station.log.emit(StateAwaited(chunks=9, left=3, donors=2, seconds=4.0))
    assert "6 of 9 chunks from 2 donors" in json.loads(ask(station, "status")[1])["line"]


def test_a_page_says_how_its_peer_is_connected(station: Station) -> None:
    facts = Facts(station, lambda: Status(incarnation=1, counter=1, state="training"))
    node = SimpleNamespace(
        me="me", addresses=[], reach="private", relays=("/relay",), ways={"bob": "relayed"}
    )
    membership = SimpleNamespace(alive=lambda _: ["bob"])
    facts.link = cast(
        "Any",
        SimpleNamespace(node=node, membership=membership, phonebook=SimpleNamespace(order="")),
    )
    said = facts.now()
    assert (said["reach"], said["relays"]) == ("private", ["/relay"])
    assert said["ways"] == {"bob": "relayed"}
    assert said["alive"] == 1


def test_the_buttons_pause_go_on_and_leave(station: Station) -> None:
    assert ask(station, "pause", ASKED, "POST")[0] == 204
    assert station.pause
    assert ask(station, "resume", ASKED, "POST")[0] == 204
    assert not station.pause
    assert ask(station, "leave", ASKED, "POST")[0] == 204
    assert station.stop.reason == "the status page"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 403),
        (ASKED | {"Origin": "http://evil.example"}, 403),
        (ASKED | {"Host": "evil.example:8080"}, 421),
        (ASKED | {"Host": "127.0.0.1.evil.example"}, 421),
    ],
    ids=["unasked", "another site", "another name", "a name that looks like an address"],
)
def test_another_site_cannot_give_orders(
    station: Station, headers: dict[str, str], code: int
) -> None:
    assert ask(station, "leave", headers, "POST")[0] == code
    assert not station.stop
    assert ask(station, "leave", method="GET")[0] == 405


def test_another_name_learns_nothing(station: Station) -> None:
    assert ask(station, "status", {"Host": "evil.example"})[0] == 421
    assert ask(station, "status", {"Host": "localhost:1"})[0] == 200
    assert ask(station, "status", {"Host": "[::1]:1"})[0] == 200


def test_an_address_that_is_taken_or_none_is_the_users_mistake(
    station: Station, tmp_path: Path
) -> None:
    [opened] = [e for e in read_events(station.out / "events.jsonl") if e["event"] == "page_opened"]
    taken = opened["url"].removeprefix("http://").removesuffix("/")
    other = Station.open(tmp_path / "other", "bob", PeerConfig(status=taken))
    status = Status(incarnation=1, counter=1, state="syncing")
    with pytest.raises(AddressError, match="in use"):
        other.net.run(Page(other, lambda: status).open())
    other.close()
    for wrong in ("127.0.0.1", "localhost:http", "127.0.0.1:65536"):
        with pytest.raises(ConfigError, match="write it as"):
            load_peer(None, [f"status={wrong}"])
