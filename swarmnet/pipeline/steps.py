"""How the gradient sums of a stage peer become steps: ``together`` with its mates, or ``apart``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from swarmnet.exchange.farewell import Said
from swarmnet.pipeline.past import Past
from swarmnet.wire.messages import Tally


class Steps(Protocol):
    """One stage peer's steps. All of it in the network's loop, but ``boundary``."""

    flush: bool
    """The run ends and no trainer sends any more: step with what is there."""
    failed: int
    """Meetings that came to nothing after sums were sent."""
    bytes_sent: int
    """In meetings for a step; those that are exchanges stand in events of their own."""

    @property
    def past(self) -> Past:
        """What is behind the weights; a step ahead of them while it is being taken."""
        ...

    @property
    def settled(self) -> bool:
        """No step is being taken and none is in doubt."""
        ...

    async def open(self) -> None:
        """Serve the others; nothing happens before ``restored``."""
        ...

    async def run(self) -> None:
        """Until cancelled. Raises what is a bug of ours."""
        ...

    async def between(self) -> None:
        """Between two tasks of the compute thread."""
        ...

    def boundary(self) -> None:
        """Compute thread, right before a step moves the weights."""
        ...

    def restored(self, past: Past) -> None:
        """The weights are those of ``past`` now."""
        ...

    def counted(self) -> None:
        """Samples were added to the sums, or the run ends: look at once."""
        ...

    def committed(self, sample: int) -> bool:
        """Whether a step behind these weights, as far as remembered, holds this sample."""
        ...

    def tally(self) -> Tally | None:
        """My word for the mates; None where they need none."""
        ...

    def hear(self, peer: str, tally: Tally) -> None:
        """Raises MessageError where mates tell no tallies."""
        ...

    def leave(self) -> None:
        """This peer goes to another stage and takes no new samples."""
        ...

    async def bequeath(self, until: float) -> Said | None:
        """This peer goes for good: what nobody has of its steps goes to a mate, by ``until`` of its
        clock. None: mates have all of it, or there is nothing. Nothing meets anybody afterwards."""
        ...

    async def finish(self) -> None:
        """The last step is taken: on return all peers of the stage hold the same, or nearly."""
        ...

    def in_weights(self) -> list[tuple[str, int]]:
        """Rounds of others that the weights hold: a checkpoint keeps both or neither."""
        ...

    def remember(self, rounds: Iterable[tuple[str, int]]) -> None:
        """Of a checkpoint that is taken up again; before ``restored``."""
        ...
