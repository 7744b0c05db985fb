"""Everybody in turn, fast or slow: what the other wirings are compared with."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable

from swarmnet.config import Section

PATIENCE_S = 30.0


class RoundRobin:
    """Equal shares; whoever fails is left out for a fixed time."""

    class Config(Section):
        pass

    def __init__(self, config: Config, rng: random.Random) -> None:
        self.config = config
        self.rng = rng
        self._order: list[str] = []
        self._until: dict[str, float] = {}

    def serve(self, peers: Iterable[str], now: float) -> None:
        serving = set(peers)
        newcomers = sorted(serving - set(self._order))
        self._order = [*newcomers, *(peer for peer in self._order if peer in serving)]
        self._until = {peer: at for peer, at in self._until.items() if peer in serving}

    def pick(self, size: float, now: float, avoid: Collection[str] = ()) -> str | None:
        free = [peer for peer in self._order if self._until.get(peer, now) <= now]
        for peer in [p for p in free if p not in avoid] or free:
            self._order.remove(peer)
            self._order.append(peer)
            return peer
        return None

    def finished(self, peer: str, size: float, seconds: float, now: float) -> None:
        return

    def late(self, peer: str, size: float, waited_s: float, now: float) -> None:
        self._until[peer] = now + PATIENCE_S

    def failed(self, peer: str, now: float) -> None:
        self._until[peer] = now + PATIENCE_S

    def refused(self, peer: str, retry_s: float, now: float) -> None:
        self._until[peer] = now + retry_s

    def patience_s(self, peer: str, size: float) -> float:
        return PATIENCE_S

    def next_at(self, now: float) -> float | None:
        return min((at for at in self._until.values() if at > now), default=None)
