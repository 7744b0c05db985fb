"""A whole simulated swarm: built from a few options, hurt by a script, judged by its events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Self

import numpy as np

from swarmnet.exchange.farewell import Said
from swarmnet.sim.book import PhoneBook
from swarmnet.sim.clock import now
from swarmnet.sim.link import Cut
from swarmnet.sim.network import SimNetwork
from swarmnet.sim.peer import SimOptions, SimPeer
from swarmnet.sim.script import Script
from swarmnet.sim.vector import Floats, disagreement

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
SEEDS_PER_PEER = 100
"""Lives that one peer may have before its randomness repeats that of another."""


def peer_name(number: int) -> str:
    """The id of the ``number``-th peer, in the alphabet of real ids and in their order."""
    letters = ""
    for _ in range(4):
        number, place = divmod(number, len(LETTERS))
        letters = LETTERS[place] + letters
    return f"peer{letters}"


class Swarm:
    """``n`` peers. ``clock_offsets_s``: what the own clocks of the first peers are ahead.

    ``peers`` holds the newest life of each number, crashed ones too; ``former`` earlier lives.
    """

    def __init__(
        self,
        n: int,
        options: SimOptions,
        network: SimNetwork | None = None,
        seed: int = 0,
        clock_offsets_s: Iterable[float] = (),
    ) -> None:
        self.options = options
        self.network = network or SimNetwork(seed=seed)
        self.book = PhoneBook()
        self.seed = seed
        self.offsets_s = dict(enumerate(clock_offsets_s))
        self.former: list[SimPeer] = []
        self.lives: Counter[int] = Counter()
        self.peers = [self.peer(number) for number in range(n)]

    def peer(self, number: int) -> SimPeer:
        """A new life of this number, not yet started."""
        seed = (self.seed << 32) + number * SEEDS_PER_PEER + self.lives[number]
        self.lives[number] += 1
        return SimPeer(
            peer_name(number),
            self.network,
            self.book,
            self.options,
            seed,
            self.offsets_s.get(number, 0.0),
        )

    # ---- life -------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Every peer serves, publishes, meets and steps, as tasks of the running loop."""
        for peer in self.peers:
            await peer.start()
        return self

    async def join(self) -> SimPeer:
        peer = self.peer(len(self.peers))
        self.peers.append(peer)
        await peer.start()
        return peer

    def play(self, script: Script) -> None:
        """From now on the script happens to this swarm."""
        self.network.own("", asyncio.create_task(self._play(script)))

    async def _play(self, script: Script) -> None:
        began = now()
        for act in script.acts:
            await asyncio.sleep(began + act.at - now())
            done = act.do(self)
            if done is not None:
                await done

    # ---- faults -----------------------------------------------------------------------------

    def crash(self, number: int) -> None:
        self.network.crash(self.peers[number].me)

    async def leave(self, number: int) -> Said:
        """In good order: its work goes to a neighbour, then it is gone."""
        said = await self.peers[number].leave()
        self.crash(number)
        return said

    async def restart(self, number: int) -> SimPeer:
        """The same id as a new process, with a higher incarnation and weights of its own."""
        self.former.append(self.peers[number])
        peer = self.peers[number] = self.peer(number)
        self.network.restart(peer.me)
        await peer.start()
        return peer

    def freeze(self, number: int, for_s: float) -> None:
        self.network.freeze(self.peers[number].me, for_s)

    def slow(self, number: int, by: float) -> None:
        self.peers[number].slowdown = by

    def partition(self, walls: Iterable[tuple[int, int]]) -> None:
        for a, b in walls:
            self.network.partition(self.peers[a].me, self.peers[b].me)

    def heal(self, walls: Iterable[tuple[int, int]]) -> None:
        for a, b in walls:
            self.network.heal(self.peers[a].me, self.peers[b].me)

    def cut(self, opener: int, sender: int, after_bytes: int) -> None:
        ends = self.peers[opener].me, self.peers[sender].me
        self.network.cuts.append(Cut(*ends, after_bytes))

    # ---- what came of it --------------------------------------------------------------------

    @property
    def live(self) -> list[SimPeer]:
        return [peer for peer in self.peers if not self.network.is_down(peer.me)]

    def outcomes(self) -> Counter[str]:
        """How the windows of all peers ended, those of former lives too."""
        everybody = [*self.peers, *self.former]
        return Counter(event.outcome for peer in everybody for event in peer.events)

    def disagreement(self) -> float:
        """Of the live replicas: root mean square distance from their mean."""
        return disagreement([peer.subject.live for peer in self.live])

    def mean(self) -> Floats:
        """Of the live replicas."""
        mean: Floats = np.mean([peer.subject.live for peer in self.live], axis=0)
        return mean
