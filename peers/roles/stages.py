"""A machine that holds several stages, or a whole replica: one stage peer for each, in one process.

To the swarm they are peers like all others, each with its own key and record, so routing, meetings
and repairs need not know that they share a machine. They share one compute thread, so that the
machine serves as much as it can and no more, the network thread and the log. They stay where they
are: a machine that holds a whole replica is of use at every stage.
"""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from peers.link import learn_run, start_node
from peers.roles.stage import StagePeer, serve
from peers.station import Station
from swarmnet.config import RunFile
from swarmnet.errors import ConfigError, StopRequested
from swarmnet.wire.invite import Invite


def serve_stages(
    station: Station, invite: Invite, given: bytes | None, wanted: list[int] | None
) -> int:
    """Serve these stages to the end of the run: [] all, None the one most needed.

    Raises SwarmnetError.
    """
    if wanted is None or len(wanted) == 1:
        return serve(station, invite, given, wanted[0] if wanted else None)
    try:
        return _serve_several(station, invite, given, wanted)
    finally:
        station.close()


def _serve_several(station: Station, invite: Invite, given: bytes | None, wanted: list[int]) -> int:
    if station.peer.announce:
        raise ConfigError(
            "announce names one address, and each stage of this machine has its own: start a "
            "process for each stage"
        )
    run = station.run(_learn(station, invite, given))
    stages = run.config.pipeline.stages
    numbers = wanted or list(range(stages))
    if stages > 1:  # transformers imports by and by, which two threads at once break
        run.config.model.build("model", station.peer.models).plan(stages)
    compute = ThreadPoolExecutor(1, "swarmnet-compute")
    peers = [StagePeer(station.branch(k), invite, run.raw, k, compute) for k in numbers]
    with ThreadPoolExecutor(len(peers), "swarmnet-stage") as pool:
        lives = [pool.submit(peer.run) for peer in peers]
        wait(lives, return_when=FIRST_EXCEPTION)
        if any(life.done() and life.exception() for life in lives):
            station.stop.set("one of its stages failed")
    compute.shutdown(wait=False, cancel_futures=True)
    return _end(lives)


def _end(lives: list[Future[int]]) -> int:
    """The first failure that is no consequence of another one, else the worst exit code."""
    problems = [problem for life in lives if (problem := life.exception()) is not None]
    for problem in problems:
        if not isinstance(problem, StopRequested):
            raise problem
    if problems:
        raise problems[0]
    return max(life.result() for life in lives)


async def _learn(station: Station, invite: Invite, given: bytes | None) -> RunFile:
    node = await start_node(station, invite)
    try:
        return await learn_run(station, node, invite, given)
    finally:
        await node.close()
