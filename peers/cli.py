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
from typing import TYPE_CHECKING, Annotated, Any, cast

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

Out = Annotated[Path | None, typer.Option("--out", help="Folder for everything that is left.")]
Set = Annotated[list[str], typer.Option("--set", help="Override: section.key=value.")]
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
    overrides: Set = [],  # noqa: B006
    invite_file: Annotated[Path | None, typer.Option(help="Also write the invite here.")] = None,
) -> None:
    """Start a run: DHT entry point; prints the invite and the line that a volunteer types.

    Example: [bold]swarmnet bootstrap configs/runs/demo.toml --port 4001[/]
    """
    from peers.roles.bootstrap import Bootstrap, Seen, write_invite
    from swarmnet.config import RunFile

    run_file = RunFile.load(find_run(run), overrides)
    station = _station(out, f"{run_file.config.name}-bootstrap", _peer(None, [], port, announce))
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
    from swarmnet.errors import ConfigError
    from swarmnet.wire.invite import Invite

    if role not in ROLES:
        raise ConfigError(f"--role {role!r} is not known; known: {', '.join(ROLES)}")
    if stage is not None and role != "stage":
        raise ConfigError("--stage is for --role stage")
    decoded = Invite.decode(invite)
    given = RunFile.load(run).raw if run is not None else None
    settings = _peer(peer_file, overrides, port, announce)
    station = _station(out, f"{decoded.run}-peer", settings)
    from peers.console import follow
    from peers.roles import enter

    with follow(station.log, decoded.run):
        code = enter(role, station, decoded, given, stage)
    _say(_closing_line(station.out))
    raise typer.Exit(code)


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
    """Merge the replicas into a checkpoint that AutoModelForCausalLM.from_pretrained loads.

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
                run_file, merged = merging.from_swarm(station, decoded)
            finally:
                station.close()
    else:
        run_file, merged = merging.from_folders(folders)
    merging.save(run_file, merged.theta, settings.models, target)
    result = {
        "out": str(target),
        "replicas": sorted(merged.replicas),
        "disagreement": merged.disagreement,
    }
    if as_json:
        typer.echo(json.dumps(result))
    else:
        count = len(merged.replicas)
        _say(f"{count} replicas merged into {target} (disagreement {merged.disagreement:.2e})")


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
    _say(f"{what}: told {heard} workers")


@app.command()
def demo(
    workers: Annotated[int, typer.Option("--peers", min=1, max=64, help="Workers.")] = 4,
    minutes: Annotated[float | None, typer.Option(help="Longest training time.")] = None,
    no_churn: Annotated[bool, typer.Option("--no-churn", help="Kill nobody.")] = False,
    solo: Annotated[bool, typer.Option("--solo", help="Also train one worker alone.")] = False,
    slow: Annotated[
        list[str], typer.Option("--slow", metavar="INDEX:FACTOR", help="Slow worker-INDEX down.")
    ] = [],  # noqa: B006
    data: Annotated[Path | None, typer.Option(help="Your own text: a file or folder.")] = None,
    run: Annotated[Path, typer.Option(help="Run file.")] = Path("demo"),
    out: Out = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    overrides: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """A whole swarm on this machine; one worker is killed and one joins; ends with a report.

    Example: [bold]swarmnet demo --peers 3 --minutes 1[/]
    """
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    from peers.console import shown
    from peers.demo import Demo
    from peers.live import LiveView
    from peers.local import Wishes, prepare, slow_workers
    from peers.station import Stop

    slowed = slow_workers(slow, workers)
    wishes = Wishes(find_run(run), workers, minutes, seed, data, tuple(overrides), slowed)
    folder = out or Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    options = prepare(wishes, folder, churn=not no_churn, solo=solo)
    stop = Stop()
    stop.on_signals()
    view = LiveView(f"{options.run.config.name}: {workers} workers, {folder}")
    with shown(view):
        summary = Demo(options, stop, view.update).run()
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for line in closing_lines(summary, folder):
        _say(line)


def closing_lines(summary: dict[str, Any], folder: Path) -> list[str]:
    """What the demo says when it is over."""
    evaluation, exchanges = summary["eval"], summary["exchanges"]
    lines = [
        f"merged model [bold]{evaluation['merged']:.3f}[/] nats per token on held-out text; "
        f"replicas {evaluation['mean_of_peers']:.3f}",
        f"{summary['steps']} steps a worker (median), {exchanges['ok']} exchanges, "
        f"{summary['bytes_sent'] / 1e6:.0f} MB sent, {summary['seconds']:.0f} s",
        f"report: {folder / 'report.html'}   model: {folder / 'model'}",
    ]
    if any(worker["slowdown"] > 1 for worker in summary["workers"]):
        lines[2:2] = [worker_line(worker) for worker in summary["workers"]]
    if summary.get("speedup") is not None:
        lines.insert(1, f"one worker alone needs {summary['speedup']} times the steps for that")
    return lines


def worker_line(worker: dict[str, Any]) -> str:
    """What one worker did, when not all are alike."""
    marks = [name for name in ("killed", "joined") if worker[name]]
    if worker["slowdown"] > 1:
        marks.append(f"{worker['slowdown']:g} times slower")
    stalled = 100 * (worker["stall_fraction"] or 0.0)
    return (
        f"{worker['name']}: {worker['steps']} steps, {worker['met_in_training']} meetings while "
        f"training, {worker['solo']} alone, stalled {stalled:.1f} % of its time"
        + "".join(f", {mark}" for mark in marks)
    )


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
    station.stop.on_signals()
    return station


def _closing_line(out: Path) -> str:
    from swarmnet.events import read_events

    last = [e for e in read_events(out / "events.jsonl") if e["event"] == "peer_finished"]
    if not last:
        return f"nothing done; {out}"
    done = last[-1]
    gave = done["bytes_sent"] / 1e6
    return f"{done['steps']} steps, {done['ok']} exchanges, {gave:.1f} MB given; {out}"


def _say(text: str) -> None:
    err.print(text, soft_wrap=True)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback."""
    level = logging.getLevelNamesMapping().get(os.environ.get("SWARMNET_LOG", "").upper())
    logging.basicConfig(level=level or logging.WARNING, stream=sys.stderr)
    from swarmnet.errors import SwarmnetError

    try:
        app()
    except SwarmnetError as error:
        err.print(f"swarmnet: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except OSError as error:
        err.print(f"swarmnet: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
