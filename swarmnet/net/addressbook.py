"""The address book: whom this peer met, kept in its folder, so that it finds the run again.

A restart works as long as one of those lives, also when every bootstrap of the invite is gone. The
file also says how this peer was reached and at which port, because others have it in their books.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from swarmnet.errors import AddressError
from swarmnet.files import replace_text
from swarmnet.net.daemon import Reach
from swarmnet.wire.invite import parse_address
from swarmnet.wire.messages import Hex, PeerId

FILE = "addresses.json"
MAX_PEERS = 128
MAX_ADDRESSES = 4
MAX_BYTES = 256 * 1024
Address = Annotated[str, StringConstraints(max_length=200)]
log = logging.getLogger(__name__)


class Entry(BaseModel):
    """One peer that was met: where it listens (without ``/p2p/ID``), and when, by our clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    peer: PeerId
    addresses: Annotated[tuple[Address, ...], Field(max_length=MAX_ADDRESSES)]
    met: Annotated[float, Field(ge=0, le=1e11)]
    relays: bool = False


class Book(BaseModel):
    """The whole file. ``port`` 0: not known yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    run: Hex = ""
    reach: Reach = "unknown"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    peers: Annotated[tuple[Entry, ...], Field(max_length=MAX_PEERS)] = ()


def load(path: Path, run: str) -> Book:
    """The book of ``run`` in ``path``; an empty one when there is none, or none that holds."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        book = Book.model_validate_json(raw)
        for entry in book.peers:
            for address in entry.addresses:
                parse_address(address, needs_peer=False)
    except FileNotFoundError:
        return Book(run=run)
    except (OSError, ValueError, ValidationError, AddressError) as error:
        reason = str(error).splitlines()[0]
        log.warning("the address book %s cannot be used, a new one is begun: %s", path, reason)
        return Book(run=run)
    return book if book.run == run else Book(run=run)


def save(path: Path, book: Book) -> None:
    """Whole or not at all. A disk that refuses costs the news and nothing else."""
    try:
        replace_text(path, book.model_dump_json(indent=1))
    except OSError as error:
        log.debug("the address book was not written: %s", error)
