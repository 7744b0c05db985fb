"""The command line: the only reader of arguments and environment, and the only printer.

Heavy imports (torch, hivemind) happen inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console

if TYPE_CHECKING:
    from peers.station import Station
    from swarmnet.config import PeerConfig

app = typer.Typer(
    name="swarmnet",
    help="Train one model on computers that come and go.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
err = Console(stderr=True, highlight=False)
_Usage = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
"""What typer raises for a line that it cannot read: click's in some releases, its own in others."""

Out = Annotated[Path | None, typer.Option("--out", help="Folder for everything that is left.")]
Set = Annotated[
    list[str], typer.Option("--set", help="Override a key of the peer file: key=value.")
]
SetRun = Annotated[
    list[str], typer.Option("--set", help="Override a key of the run file: section.key=value.")
]
ROLES = ("auto", "worker", "stage", "trainer")
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
PeerFile = Annotated[Path | None, typer.Option("--peer", help="TOML file of this machine.")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on (0: any).")]
Announce = Annotated[
    list[str], typer.Option("--announce", help="Multiaddr that others should dial instead.")
]


@app.command()
def bootstrap(
    run: Annotated[Path, typer.Argument(help="Run file (TOML).")],
    out: Out = None,
    port: Port = None,
    announce: Announce = [],  # noqa: B006 - typer reads the default, nobody changes it
    overrides: SetRun = [],  # noqa: B006
    invite_file: Annotated[Path | None, typer.Option(help="Also write the invite here.")] = None,
) -> None:
    """Start a run: DHT entry point; prints the invite and the line that a volunteer types.

    Example: [bold]swarmnet bootstrap configs/runs/demo.toml --port 4001[/]
    """
    from peers.roles.bootstrap import Bootstrap, Seen, write_invite
    from swarmnet.config import RunFile

    run_file = RunFile.load(find_run(run), overrides)
    station = _station(out, f"{run_file.config.name}-bootstrap", _peer(None, [], port, announce))
    station.log.listen(_say_notable)
    role = Bootstrap(station, run_file)
    try:
        invite = role.start()
        text = invite.encode()
        if invite_file is not None:
            write_invite(invite, invite_file)
        _say(f"run [bold]{run_file.config.name}[/] {run_file.fingerprint} is open; {station.out}")
        _say("A volunteer types:\n")
        typer.echo(f"swarmnet peer {text}\n")
        last = Seen(-1, 0, 0.0)

        def tell(seen: Seen) -> None:
            nonlocal last
            if seen.peers != last.peers or seen.progress - last.progress >= 0.05:
                _say(f"{seen.peers} peers, {seen.tokens:,} tokens, {seen.progress:.0%}")
                last = seen

        code = role.serve(tell)
    finally:
        station.close()
    raise typer.Exit(code)


@app.command()
def peer(
    invite: Annotated[str, typer.Argument(help="What `swarmnet bootstrap` printed.")],
    peer_file: PeerFile = None,
    role: Annotated[str, typer.Option(help="auto, worker, stage or trainer.")] = "auto",
    stage: Annotated[
        str | None, typer.Option(help="1, 0,2 or all. Default: the one most needed.")
    ] = None,
    out: Out = None,
    port: Port = None,
    announce: Announce = [],  # noqa: B006
    overrides: Set = [],  # noqa: B006
    run: Annotated[Path | None, typer.Option(help="Your own copy of the run file.")] = None,
) -> None:
    """Join a run as a volunteer; Ctrl-C leaves cleanly, the same --out continues.

    Example: [bold]swarmnet peer swarm1:... --set device=cpu --set threads=4[/]
    """
    from swarmnet.config import RunFile
    from swarmnet.errors import ConfigError, StopRequested
    from swarmnet.wire.invite import Invite

    if role not in ROLES:
        raise ConfigError(f"--role {role!r} is not known; known: {', '.join(ROLES)}")
    if stage is not None and role != "stage":
        raise ConfigError("--stage is for --role stage")
    from peers.roles import chosen, enter

    stages = chosen(stage)
    settings = _peer(peer_file, overrides, port, announce)
    given = RunFile.load(run).raw if run is not None else None
    decoded = Invite.decode(invite)
    station = _station(out, f"{decoded.run}-peer", settings)
    from peers.console import follow

    try:
        with follow(station.log, decoded.run):
            code = enter(role, station, decoded, given, stages)
    except (StopRequested, SystemExit):  # before there was anything to leave behind
        code = StopRequested.exit_code
    _say(_closing_line(station.out))
    _end(code)


@app.command()
def export(
    invite: Annotated[str | None, typer.Argument(help="Invite of a live run.")] = None,
    out: Out = None,
    folders: Annotated[
        list[Path], typer.Option("--from", help="Peers' folders, when nobody is alive.")
    ] = [],  # noqa: B006
    overrides: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Make a checkpoint that AutoModelForCausalLM.from_pretrained loads, of replicas or stages.

    Example: [bold]swarmnet export swarm1:... --out merged[/]
    """
    from swarmnet.errors import ConfigError
    from swarmnet.wire.invite import Invite

    if (invite is None) == (not folders):
        raise ConfigError("give either an invite or --from DIR")
    target = out or Path("merged")
    from peers import export as merging

    settings = _peer(None, overrides, None, [])
    if invite is not None:
        decoded = Invite.decode(invite)
        with tempfile.TemporaryDirectory() as visit:
            station = _station(Path(visit), "export", settings)
            try:
                found = merging.from_swarm(station, decoded)
            finally:
                station.close()
    else:
        found = merging.from_folders(folders)
    found.save(settings.models, target)
    if as_json:
        typer.echo(json.dumps({"out": str(target)} | found.figures()))
    else:
        _say(found.said(target))


@app.command()
def order(
    invite: Annotated[str, typer.Argument(help="Invite of the run.")],
    what: Annotated[str, typer.Argument(help="pause, run or end.")],
    folder: Annotated[Path, typer.Option("--key", help="Folder of `swarmnet bootstrap`.")],
    overrides: Set = [],  # noqa: B006
) -> None:
    """Pause a run for everybody, let it go on, or end it, with its owner's key.

    Example: [bold]swarmnet order swarm1:... end --key runs/demo-bootstrap[/]
    """
    from typing import get_args

    from swarmnet.errors import ConfigError
    from swarmnet.net.phonebook import Order
    from swarmnet.wire.invite import Invite

    if what not in get_args(Order):
        raise ConfigError(f"order {what!r} is not known; known: {', '.join(get_args(Order))}")
    decoded = Invite.decode(invite)
    from peers.order import give_order

    heard = give_order(folder, _peer(None, overrides, None, []), decoded, cast("Order", what))
    _say(f"{what}: told {heard} peers")


@app.command()
def demo(
    pipeline: Annotated[
        bool, typer.Option("--pipeline", help="A model in stages, each served by several peers.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option("--peers", min=1, max=64, help="Workers (4), or stage peers (2 a stage)."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Longest training time.")] = None,
    no_churn: Annotated[bool, typer.Option("--no-churn", help="Kill nobody.")] = False,
    kill_every: Annotated[
        float | None, typer.Option("--kill-every", metavar="S", help="Kill -9 one every S seconds.")
    ] = None,
    join_every: Annotated[
        float | None, typer.Option("--join-every", metavar="S", help="One joins every S seconds.")
    ] = None,
    storm: Annotated[
        str | None, typer.Option(help="Faults by a file, or gentle, storm32, everything.")
    ] = None,
    solo: Annotated[bool, typer.Option("--solo", help="Also train one worker alone.")] = False,
    slow: Annotated[
        list[str],
        typer.Option("--slow", metavar="INDEX:FACTOR", help="Slow worker-INDEX (all) down."),
    ] = [],  # noqa: B006
    data: Annotated[Path | None, typer.Option(help="Your own text: a file or folder.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run file; default: demo or pipeline.")] = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    overrides: SetRun = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """A whole swarm on this machine; one peer is killed and one joins; ends with a report.

    Example: [bold]swarmnet demo --peers 3 --minutes 1[/], or [bold]swarmnet demo --pipeline[/]

    With churn: [bold]swarmnet demo --peers 6 --kill-every 15 --join-every 20 --minutes 3[/]
    """
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    from peers.local import Wishes, storm_of
    from peers.shows import show_pipeline, show_workers
    from peers.slow import slow_workers
    from swarmnet.errors import ConfigError

    name = "pipeline" if pipeline else "demo"
    if pipeline and solo:
        raise ConfigError("--solo is for workers: a stage alone trains nothing")
    brewed = storm_of(storm, kill_every, join_every, churn=not no_churn)
    if pipeline and brewed is not None:
        raise ConfigError("--kill-every, --join-every and --storm are for workers, not --pipeline")
    slowed = slow_workers(slow, workers or (64 if pipeline else 4))
    path = find_run(run or Path(name))
    wishes = Wishes(path, workers or 0, minutes, seed, data, tuple(overrides), slowed, brewed)
    folder = out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    if pipeline:
        summary, lines = show_pipeline(wishes, folder, churn=not no_churn)
    else:
        summary, lines = show_workers(wishes, folder, churn=not no_churn, solo=solo)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for line in lines:
        _say(line)


def find_run(path: Path) -> Path:
    """A path, or the name of a run file that ships with the package."""
    from peers.configs_folder import shipped

    if path.is_file() or path.name != str(path):
        return path
    return shipped("runs", path.name) or path


def _peer(
    path: Path | None, overrides: list[str], port: int | None, announce: list[str]
) -> PeerConfig:
    from swarmnet.config import load_peer
    from swarmnet.wire.invite import parse_address

    if port is not None:
        overrides = [*overrides, f"port={port}"]
    if announce:
        overrides = [*overrides, f"announce={json.dumps(announce)}"]
    settings = load_peer(path, overrides)
    for address in settings.announce:
        parse_address(address, needs_peer=False)
    return settings


def _station(out: Path | None, name: str, settings: PeerConfig) -> Station:
    from peers.station import Station

    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = out or Path("runs") / f"{name}-{stamp}-{os.getpid()}"
    station = Station.open(folder, folder.name, settings)
    station.listen()
    return station


def _closing_line(out: Path) -> str:
    from swarmnet.events import read_events

    events = list(read_events(out / "events.jsonl"))
    starts = [number for number, event in enumerate(events) if event["event"] == "peer_started"]
    life = events[starts[-1] :] if starts else events
    last = [event for event in life if event["event"] == "peer_finished"]
    if not last:
        return f"nothing done; {out}"
    done, role = last[-1], life[0].get("role")
    left = done["reason"].startswith("left")
    folder = f"left; --out {out} goes on" if left else str(out)
    gave = f"{done['bytes_sent'] / 1e6:.1f} MB given; {folder}"
    for farewell in (event for event in life if event["event"] == "farewell" and event["to"]):
        gave = f"the last window went to peer ...{farewell['to'][-6:]}, {gave}"
    if role == "trainer":
        return f"{done['steps']} samples begun, {done['ok']} in steps of all stages, {gave}"
    if role == "stage":
        return f"{done['steps']} steps, {gave}"
    return f"{done['steps']} steps, {done['ok']} exchanges, {gave}"


def _say_notable(line: dict[str, Any]) -> None:
    from peers.console import notable

    if (said := notable(line)) is not None:
        err.print(said, markup=False, soft_wrap=True)


def _end(code: int) -> NoReturn:
    """All is closed and written; with torch loaded the interpreter's own end takes a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say(text: str) -> None:
    err.print(text, soft_wrap=True)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback."""
    level = logging.getLevelNamesMapping().get(os.environ.get("SWARMNET_LOG", "").upper())
    logging.basicConfig(level=level or logging.WARNING, stream=sys.stderr)
    from swarmnet.errors import SwarmnetError

    try:
        sys.exit(app(prog_name="swarmnet", standalone_mode=False))
    except _Usage as error:
        _complain(_usage(error))
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(1)
    except SwarmnetError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        _complain(str(error))
        sys.exit(1)


def _usage(error: typer.BadParameter) -> str:
    """What was mistyped; a list of the commands stands for a line without any."""
    said = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "swarmnet"
    return f"{said}; see {command} --help" if said else ""


def _complain(text: str) -> None:
    if text:
        err.print(f"swarmnet: {text}", style="red", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
