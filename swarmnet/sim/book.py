"""Stands for the DHT: the newest status of each peer, readable by everybody."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from swarmnet.exchange.membership import Status
from swarmnet.sim.clock import now


@dataclass
class PhoneBook:
    """Nothing can be deleted: the record of a dead peer stays until it is ``kept_s`` old."""

    statuses: dict[str, Status] = field(default_factory=dict)
    kept_s: float = 1800.0
    _names: list[str] = field(default_factory=list)
    _written: dict[str, float] = field(default_factory=dict)

    def write(self, peer: str, status: Status) -> None:
        if peer not in self.statuses:
            self._names.append(peer)
        self.statuses[peer] = status
        self._written[peer] = now()

    def read(self, most: int | None, rng: random.Random) -> list[tuple[str, Status]]:
        """Every record, or ``most`` of them by chance: in a large swarm digests do the rest."""
        names = self._names
        if most is not None and most < len(names):
            names = rng.sample(names, most)
        oldest = now() - self.kept_s
        return [(peer, self.statuses[peer]) for peer in names if self._written[peer] >= oldest]
