"""What a peer says of itself on its page: its own status, whom it sees, what happened lately."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

from peers.console import OwnView
from peers.station import Station
from swarmnet.exchange.membership import Membership, Status
from swarmnet.net.node import Node
from swarmnet.net.phonebook import Phonebook

RECENT = 20
SHOWN = ("exchange", "stage_step", "checkpoint", "state_taken", "farewell", "state_served")


class Joined(Protocol):
    """A membership of a run, as far as the page shows it (``link.Link``)."""

    @property
    def node(self) -> Node: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def phonebook(self) -> Phonebook: ...


class Facts:
    """Gathered from events as they come and from the link when asked for."""

    def __init__(self, station: Station, status: Callable[[], Status]) -> None:
        self.link: Joined | None = None
        self._station = station
        self._status = status
        self._began = time.monotonic()
        self._counts = Counter[str]()
        self._recent = deque[dict[str, Any]](maxlen=RECENT)
        self._started: dict[str, Any] = {}
        self._progress = 0.0
        self._view = OwnView(station.name)
        station.log.listen(self._view.update)
        station.log.listen(self._note)

    def _note(self, line: dict[str, Any]) -> None:
        """In whatever thread emits."""
        kind = line["event"]
        if kind == "peer_started":
            self._started = line
        if kind == "exchange":
            self._counts[line["outcome"]] += 1
        self._progress = float(line.get("progress", self._progress))
        if kind in SHOWN:
            self._recent.append(line)

    def now(self) -> dict[str, Any]:
        """In the network's loop."""
        station, started = self._station, self._started
        said: dict[str, Any] = {
            "name": station.name,
            "run": started.get("run", ""),
            "role": started.get("role", ""),
            "state": "joining",
            "resting": bool(station.pause),
            "leaving": station.stop.reason,
            "line": self._view.plain_line(),
            "up_s": time.monotonic() - self._began,
            "progress": self._progress,
            "exchanges": dict(self._counts),
            "recent": list(self._recent)[::-1],
        }
        return said | (self._joined(self.link) if self.link is not None else {})

    def _joined(self, link: Joined) -> dict[str, Any]:
        status = self._status()
        return {
            "peer_id": link.node.me,
            "addresses": link.node.addresses,
            "reach": link.node.reach,
            "relays": list(link.node.relays),
            "ways": link.node.ways,
            "state": status.state,
            "order": link.phonebook.order,
            "step": status.step,
            "tokens": status.tokens,
            "rate": status.rate,
            "alive": len(link.membership.alive(time.monotonic())),
        }
