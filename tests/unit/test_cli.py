"""The command line: a user's mistake is one plain line and exit code 2; the surface is frozen."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import typer

from peers import cli
from swarmnet.events import Event, EventLog, FarewellSaid, PeerFinished, PeerStarted
from swarmnet.wire.invite import Invite

ID = "12D3KooWGzBMcZ4YkpFc8yS1pUX6CbnkjRjgQyT4EGtZEAnQXjKZ"
RUN = Path(__file__).parent.parent / "swarm" / "tiny.toml"


def invite(port: int = 1) -> str:
    return Invite("tiny", "a" * 32, (f"/ip4/127.0.0.1/tcp/{port}/p2p/{ID}",), ID).encode()


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and what was said, which is one line and no traceback."""
    argv, sys.argv = sys.argv, ["swarmnet", *arguments]
    try:
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    finally:
        sys.argv = argv
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    assert said.startswith("swarmnet: ")
    assert len(said.splitlines()) == 1
    return int(exit_.value.code or 0), said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello", "must begin with"),
        ("swarm1:", "cut off"),
        (invite()[:-7], "cut off or damaged"),
        (invite() + "x", "damaged"),
        ("swarm2:" + invite()[7:], "must begin with"),
    ],
)
def test_a_bad_invite(capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    code, said = fails(capsys, "peer", text)
    assert code == 2
    assert says in said


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("demo --peers 0", "greater than or equal to 1; see swarmnet demo --help"),
        ("demo --peerz 3", "No such option: --peerz"),
        ("demo --minutes", "requires an argument"),
        ("peer", "Missing argument"),
        ("nonsense", "No such command 'nonsense'; see swarmnet --help"),
    ],
)
def test_a_mistyped_line(capsys: pytest.CaptureFixture[str], typed: str, says: str) -> None:
    code, said = fails(capsys, *typed.split())
    assert code == 2
    assert says in said


def test_no_command_is_a_list_of_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["swarmnet"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr()
    assert "bootstrap" in said.out + said.err
    assert "swarmnet: " not in said.err


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("target.token=5", "target.token"),
        ("target.tokens=many", "target.tokens"),
        ("codec=int9", "int8"),
        ("outer={name='noloco', alpha=0.9, gamma=1.0}", "gamma"),
        ("nonsense", "section.key=value"),
    ],
)
def test_a_bad_run_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, override: str, says: str
) -> None:
    code, said = fails(
        capsys, "bootstrap", str(RUN), "--out", str(tmp_path / "out"), "--set", override
    )
    assert code == 2
    assert says in said
    assert not (tmp_path / "out").exists()


def test_more_stages_than_the_model_has_blocks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cut = ("--set", "pipeline.stages=99")
    code, said = fails(capsys, "bootstrap", "pipeline", "--out", str(tmp_path), *cut)
    assert code == 2
    assert "between 1 and 6 stages" in said


def test_a_run_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = fails(capsys, "bootstrap", "no/such.toml")
    assert code == 2
    assert "no/such.toml" in said


def test_a_data_path_without_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        out = tmp_path / "out"
        code, said = fails(capsys, "demo", "--data", str(path), "--out", str(out))
        assert code == 2
        assert str(path) in said
        assert not out.exists()


def test_a_port_in_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = fails(
            capsys, "bootstrap", str(RUN), "--port", str(port), "--out", str(tmp_path)
        )
    assert code == 2
    assert str(port) in said


def test_an_identity_of_another_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    key = tmp_path / "id_rsa"
    key.write_text("-----BEGIN RSA PRIVATE KEY-----")
    setting = f'identity="{key}"'
    code, said = fails(capsys, "peer", invite(), "--out", str(tmp_path / "p"), "--set", setting)
    assert code == 2
    assert str(key) in said


def test_every_bootstrap_dead(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said = fails(capsys, "peer", invite(), "--out", str(tmp_path), "--set", "host=127.0.0.1")
    assert code == 3
    assert "no bootstrap answers" in said
    assert "ask for a fresh invite" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("peer", invite(), "--role", "king"),
        ("peer", invite(), "--announce", "example.org:80"),
        ("peer", invite(), "--peer", "no/such.toml"),
        ("peer", invite(), "--set", "threads=-1"),
        ("order", invite(), "stop", "--key", "."),
        ("order", invite(), "end", "--key", "no/such"),
        ("export",),
        ("export", "--from", "no/such"),
        ("demo", "--minutes", "-1"),
        ("demo", "--run", "no/such.toml"),
        ("demo", "--kill-every", "0"),
        ("demo", "--kill-every", "-3"),
        ("demo", "--join-every", "nan"),
        ("demo", "--storm", "no-such-storm"),
        ("demo", "--storm", "no/such.toml"),
        ("demo", "--storm", "gentle", "--kill-every", "5"),
        ("demo", "--storm", "gentle", "--no-churn"),
        ("demo", "--storm", "gentle", "--pipeline"),
    ],
)
def test_other_mistakes(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, _ = fails(capsys, *arguments)
    assert code == 2


@pytest.mark.parametrize(
    ("slow", "says"),
    [
        (["9:10"], "the workers are worker-0 to worker-4"),
        (["-1:10"], "the workers are worker-0 to worker-4"),
        (["x"], "INDEX:FACTOR"),
        (["1"], "INDEX:FACTOR"),
        (["1:fast"], "INDEX:FACTOR"),
        (["1:10,"], "INDEX:FACTOR"),
        (["1:0.5"], "the factor must be 1 to"),
        (["1:nan"], "the factor must be 1 to"),
        (["1:1e9"], "the factor must be 1 to"),
        (["1:10", "1:2"], "worker-1 is slowed already"),
        (["all:10", "all:2"], "everybody is slowed already"),
        (["all"], "write it as INDEX:FACTOR"),
    ],
)
def test_a_bad_slow_worker(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, slow: list[str], says: str
) -> None:
    out = tmp_path / "out"
    given = [f"--slow={item}" for item in slow]
    code, said = fails(capsys, "demo", "--peers", "5", "--out", str(out), *given)
    assert code == 2
    assert says in said
    assert not out.exists()


def test_the_last_line_says_where_the_last_window_went(tmp_path: Path) -> None:
    def live(*events: Event) -> str:
        """One life of a worker in this folder."""
        log = EventLog(tmp_path / "events.jsonl", "ann")
        log.emit(PeerStarted(role="worker", run="tiny", fingerprint="ab", peer_id=ID))
        for event in events:
            log.emit(event)
        done = {"steps": 7, "tokens": 1, "ok": 2, "solo": 0, "failed": 0, "bytes_sent": 3_000_000}
        log.emit(PeerFinished(reason="left: SIGTERM", **done, train_s=1.0, stall_s=0.0))
        log.close()
        return cli._closing_line(tmp_path)

    ending = f"3.0 MB given; left; --out {tmp_path} goes on"
    given = live(FarewellSaid(outcome="given", to="12D3KooWabcdef"))
    assert given == f"7 steps, 2 exchanges, the last window went to peer ...abcdef, {ending}"
    assert live(FarewellSaid(outcome="nobody")) == f"7 steps, 2 exchanges, {ending}"


def test_the_surface_is_frozen() -> None:
    """A new command or flag is a decision: it changes this list and the README."""
    group = typer.main.get_command(cli.app)
    surface = {
        name: sorted(o for p in command.params for o in p.opts if o.startswith("--"))
        for name, command in group.commands.items()
    }
    assert surface == {
        "bootstrap": ["--announce", "--invite-file", "--out", "--port", "--set"],
        "demo": [
            "--data",
            "--join-every",
            "--json",
            "--kill-every",
            "--minutes",
            "--no-churn",
            "--out",
            "--peers",
            "--pipeline",
            "--run",
            "--seed",
            "--set",
            "--slow",
            "--solo",
            "--storm",
        ],
        "export": ["--from", "--json", "--out", "--set"],
        "order": ["--key", "--set"],
        "peer": ["--announce", "--out", "--peer", "--port", "--role", "--run", "--set", "--stage"],
    }
    for command in group.commands.values():
        assert "Example:" in (command.help or "")
