"""A donor in a process of its own, for ``join.py``: a state to give, and a bare stream."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from hivemind.p2p import PeerID

from peers.give import TOPIC, Giver, Terms
from peers.portrait import Easel, Portrait
from swarmnet.config import PeerConfig
from swarmnet.net.daemon import Listen
from swarmnet.net.identity import load_or_create
from swarmnet.net.node import Node, NodeOptions

BARE = "bare"
VECTORS = ("theta", "outer.phi", "outer.delta", "inner.exp_avg", "inner.exp_avg_sq")
FACTS = {"step": 1, "tokens": 1, "elapsed_s": 1.0, "met": True}
READ_BYTES = 1 << 20
FINGERPRINT = "ab" * 16


def tensors(parameters: int) -> dict[str, torch.Tensor]:
    """A state under NoLoCo and AdamW: five vectors and a scalar."""
    torch.manual_seed(0)
    return {name: torch.randn(parameters) for name in VECTORS} | {"inner.step": torch.tensor(1.0)}


def options(folder: Path, name: str, bootstrap: tuple[str, ...] = ()) -> NodeOptions:
    return NodeOptions(
        identity=load_or_create(folder / name),
        fingerprint=FINGERPRINT,
        run_file=b"",
        bootstrap=bootstrap,
        listen=Listen("127.0.0.1"),
    )


def serve(folder: Path, parameters: int, pipe: Connection) -> None:
    """Give until the pipe says something; tells its addresses first."""
    torch.set_num_threads(1)
    asyncio.run(_serve(folder, parameters, pipe))


async def _serve(folder: Path, parameters: int, pipe: Connection) -> None:
    node = await Node.start(options(folder, "donor.key"))
    state, easel = tensors(parameters), Easel()

    def portrait() -> Portrait:
        return Portrait({name: tensor.clone() for name, tensor in state.items()}, FACTS)

    giver = Giver(b"", easel, lambda: "serving", Terms.of(PeerConfig(), 0.0), lambda event: None)
    await node.serve(TOPIC, giver.handle)
    content = bytes(4 * len(VECTORS) * parameters)

    async def bare(_: Any, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        await reader.read(1)
        writer.close()

    # The node's own daemon: what differs between the rows is then our code alone.
    await node._daemon.p2p.add_binary_stream_handler(BARE, bare)  # type: ignore[union-attr]
    pipe.send((node.me, node.addresses))
    while not pipe.poll():
        easel.paint(portrait)
        await asyncio.sleep(0.005)
    await node.close()


async def read_bare(node: Node, peer: str, nbytes: int) -> None:
    """The same bytes without frames, hashes or places to put them."""
    p2p = node._daemon.p2p  # type: ignore[union-attr]
    _, reader, writer = await p2p.call_binary_stream_handler(PeerID.from_base58(peer), BARE)
    missing = nbytes
    while missing:
        part = await reader.read(min(missing, READ_BYTES))
        if not part:
            raise EOFError("the bare stream ended early")
        missing -= len(part)
    writer.write(b"\0")
    writer.close()
