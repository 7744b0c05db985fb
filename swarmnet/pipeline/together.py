"""Peers of a stage that step together: they average gradients and stay identical, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable

from swarmnet.exchange.farewell import Said
from swarmnet.pipeline.past import Past
from swarmnet.pipeline.stepping import Stepping


class Together(Stepping):
    """Implements ``steps.Steps``: what is only of use to those that step apart does nothing."""

    @property
    def past(self) -> Past:
        return self.assembly.past

    @property
    def flush(self) -> bool:
        return self.assembly.flush

    @flush.setter
    def flush(self, flush: bool) -> None:
        self.assembly.flush = flush

    async def between(self) -> None:
        return

    def boundary(self) -> None:
        return

    def leave(self) -> None:
        """The mates' next step takes what is held here."""

    async def bequeath(self, until: float) -> Said | None:
        """Every step is everybody's."""
        return None

    async def finish(self) -> None:
        """They are the same already."""

    def in_weights(self) -> list[tuple[str, int]]:
        return []

    def remember(self, rounds: Iterable[tuple[str, int]]) -> None:
        return
