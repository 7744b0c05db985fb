"""The first words between two peers: do we train the same run, and speak the same wire version?

Its topic alone carries neither fingerprint nor version, so that peers of different runs and
releases can still tell each other what is wrong.
"""

from __future__ import annotations

from swarmnet import __version__
from swarmnet.config import differing_keys
from swarmnet.errors import ConfigError, FrameError, RunMismatchError
from swarmnet.exchange.transport import FrameStream
from swarmnet.net.stream import wait_closed
from swarmnet.wire import WIRE_VERSION, Frame, Kind
from swarmnet.wire.messages import Hello, Refuse, Welcome

TOPIC = "swarmnet/hello"
_ANSWER_S = 10.0


async def ask(stream: FrameStream, fingerprint: str, run_file: bytes, deadline_s: float) -> None:
    """Introduce ourselves. Raises RunMismatchError with the differing keys, or LinkError."""
    mine = Hello(fingerprint=fingerprint, wire=WIRE_VERSION, software=__version__)
    await stream.send(mine.frame(), deadline_s)
    try:
        answer = await stream.receive(deadline_s)
    except FrameError as error:
        raise RunMismatchError(f"{stream.peer} speaks another wire: update swarmnet") from error
    if answer.kind is Kind.REFUSE:
        raise RunMismatchError(_explain(stream.peer, Refuse.parse(answer), run_file))
    Welcome.parse(answer)


async def answer(stream: FrameStream, fingerprint: str, run_file: bytes) -> None:
    """Serve one hello: welcome, or refuse with our own run file so that the other sees why."""
    try:
        reply = _reply(Hello.parse(await stream.receive(_ANSWER_S)), fingerprint, run_file)
    except FrameError:
        reply = Refuse(reason="wire", run_file=b"").frame()
    await stream.send(reply, _ANSWER_S)
    await wait_closed(stream, _ANSWER_S)


def _reply(hello: Hello, fingerprint: str, run_file: bytes) -> Frame:
    if hello.wire != WIRE_VERSION:
        return Refuse(reason="wire", run_file=b"").frame()
    if hello.fingerprint != fingerprint:
        return Refuse(reason="run", run_file=run_file).frame()
    return Welcome(software=__version__).frame()


def _explain(peer: str, refuse: Refuse, run_file: bytes) -> str:
    if refuse.reason == "wire":
        return f"{peer} speaks another wire version: update swarmnet"
    try:
        keys = differing_keys(run_file, refuse.run_file) if run_file and refuse.run_file else []
    except ConfigError:
        keys = []
    differs = f": {'; '.join(keys)}" if keys else ""
    return f"{peer} trains another run{differs}"
