"""Notices: what each kind takes for one, what it costs when it cannot be asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from peers.preemption import watch
from peers.stop import Stop
from swarmnet.config import Choice, PeerConfig, load_peer
from swarmnet.errors import ConfigError


def notice(name: str, **options: Any) -> Any:
    return Choice(name=name, **options).build("notice")


class Metadata(BaseHTTPRequestHandler):
    answers: dict[str, tuple[int, str]] = {}  # noqa: RUF012
    asked: list[tuple[str, str, dict[str, str]]] = []  # noqa: RUF012

    def _answer(self) -> None:
        self.asked.append((self.command, self.path, dict(self.headers)))
        code, body = self.answers.get(self.path, (404, ""))
        self.send_response(code)
        if code == 302:
            self.send_header("Location", body)
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_PUT = _answer

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def service() -> Iterator[str]:
    Metadata.answers, Metadata.asked = {}, []
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_that_appears_is_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "leave"
    by_file = notice("file", path=path)
    assert by_file.look() is None
    path.touch()
    assert by_file.look() == f"{path} exists"


def test_a_file_below_no_folder_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        notice("file", path=tmp_path / "file" / "leave").look()


def test_a_program_that_exits_with_zero_is_a_notice() -> None:
    assert notice("command", argv=["true"]).look() == "true says so"
    assert notice("command", argv=["false"]).look() is None
    with pytest.raises(OSError, match=r"longer than 0\.05 s"):
        notice("command", argv=["sleep", "60"], timeout_s=0.05).look()
    with pytest.raises(FileNotFoundError):
        notice("command", argv=["/no/such/program"]).look()


def test_a_metadata_service_says_when_and_its_word_counts(service: str) -> None:
    url = f"{service}/preempted"
    by_url = notice("url", url=url, headers={"Metadata-Flavor": "Google"}, expect="TRUE")
    assert by_url.look() is None
    Metadata.answers["/preempted"] = (200, "FALSE\n")
    assert by_url.look() is None
    Metadata.answers["/preempted"] = (200, "TRUE\n")
    assert by_url.look() == f"{url} says so"
    assert Metadata.asked[-1][2]["Metadata-Flavor"] == "Google"


def test_a_token_is_asked_for_first_where_one_is_needed(service: str) -> None:
    Metadata.answers = {"/token": (200, "abc"), "/action": (200, "{}")}
    asking = notice("url", url=f"{service}/action", token_url=f"{service}/token")
    assert asking.look() is not None
    put, get = Metadata.asked
    assert put[:2] == ("PUT", "/token")
    headers = {name.lower(): value for name, value in get[2].items()}
    assert headers["x-aws-ec2-metadata-token"] == "abc"


def test_a_redirect_an_error_and_silence_are_no_notice(service: str) -> None:
    Metadata.answers = {"/moved": (302, f"{service}/yes"), "/yes": (200, ""), "/bad": (500, "")}
    for path in ("moved", "bad"):
        with pytest.raises(OSError, match="HTTP Error"):
            notice("url", url=f"{service}/{path}").look()
    with pytest.raises(OSError, match="refused"):
        notice("url", url="http://127.0.0.1:1/").look()
    assert ("GET", "/yes") not in [asked[:2] for asked in Metadata.asked]


def test_a_wrong_notice_is_a_mistake_in_the_peer_file() -> None:
    assert load_peer(None, ["notice=file", "notice.path=x"]).notice is not None
    assert PeerConfig().notice is None
    with pytest.raises(ConfigError, match="Did you mean 'file'"):
        load_peer(None, ["notice=fil"])
    with pytest.raises(ConfigError, match=r"notice\.argv"):
        load_peer(None, ["notice=command", "notice.argv=[]"])
    with pytest.raises(ConfigError, match=r"notice\.url"):
        load_peer(None, ["notice=url", 'notice.url="file:///etc/passwd"'])


class Scripted:
    """Says one thing after another."""

    def __init__(self, *says: str | OSError | None) -> None:
        self.says = list(says)

    def look(self) -> str | None:
        said = self.says.pop(0)
        if isinstance(said, OSError):
            raise said
        return said


def test_trouble_is_one_warning_and_a_notice_ends_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = Stop()
    scripted = Scripted(OSError("away"), OSError("away"), None, "taken")
    watch(scripted, 0.001, stop).join(10.0)
    assert stop.reason == "notice: taken"
    assert caplog.text.count("away") == 1
    assert not scripted.says
