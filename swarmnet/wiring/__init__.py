"""Wirings: which peer of a stage gets a trainer's next microbatch.

A trainer keeps one wiring for each stage. It learns who serves the stage, picks, and is told what
became of each pick; times are seconds on the trainer's monotonic clock, sizes are sequences.
Nothing here asks the network or the clock: the same calls give the same picks. Only microbatches
are told of; a question about metadata says nothing about a peer's pace and is no sample.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from typing import Protocol


class Wiring(Protocol):
    """Built as ``Class(config, rng)`` with the trainer's own ``random.Random``."""

    rng: random.Random

    def serve(self, peers: Iterable[str], now: float) -> None:
        """Who serves the stage from now on. The others are forgotten, but for their bans."""
        ...

    def pick(self, size: float, now: float, avoid: Collection[str] = ()) -> str | None:
        """Who gets the next ``size`` sequences, and is charged for them; None: nobody may now.

        Each pick is open until one of the four reports below closes it.
        ``avoid``: peers that failed this very microbatch; they are taken when nobody else is left.
        """
        ...

    def finished(self, peer: str, size: float, seconds: float, now: float) -> None:
        """A pick came back whole, ``seconds`` after its input was on the way to ``peer``."""
        ...

    def late(self, peer: str, size: float, waited_s: float, now: float) -> None:
        """Nothing came back for ``waited_s``: a sample of at least that, and a ban that grows."""
        ...

    def failed(self, peer: str, now: float) -> None:
        """The peer could not be reached or broke the protocol: a ban that grows."""
        ...

    def refused(self, peer: str, retry_s: float, now: float) -> None:
        """Its queue is full: no sample and no blame, it is left alone for ``retry_s``.

        With 0: the pick was not used after all, because the trip broke at another stage.
        """
        ...

    def patience_s(self, peer: str, size: float) -> float:
        """How long an answer of ``peer`` may take before it is called late."""
        ...

    def next_at(self, now: float) -> float | None:
        """When a ban or a retry time ends, for a trainer that has nobody to pick; None: never.

        A report may free a peer earlier: ask again after each of them.
        """
        ...
