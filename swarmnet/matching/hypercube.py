"""Along the edges of a hypercube: the fewest rounds to consensus.

In round k a peer meets the one whose place differs in bit k. For a power of two, one sweep
over the bits gives everybody the exact mean. Otherwise some places are empty and their
neighbours idle; each sweep then deals the places anew, so that nobody idles twice in a row by
rule, and four sweeps leave at most about 2 % of the distance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarmnet.config import Section
from swarmnet.matching._order import recent_last, require_member, shared_order
from swarmnet.matching._pairs import Pairs

SWEEPS = 4


class Hypercube(Pairs):
    """The matching of the consensus phase; while training it offers like random pairs."""

    class Config(Section):
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def candidates(
        self, me: str, live: Sequence[str], history: Sequence[str], rng: random.Random
    ) -> list[str]:
        return recent_last(live, history, rng)

    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None:
        require_member(me, roster)
        bits = (len(roster) - 1).bit_length()
        if bits == 0:
            return None
        sweep, bit = divmod(index, bits)
        order = shared_order(roster, sweep, seed)
        other = order.index(me) ^ (1 << bit)
        return order[other] if other < len(order) else None

    def rounds(self, n: int) -> int:
        sweeps = 1 if n & (n - 1) == 0 else SWEEPS
        return sweeps * max(n - 1, 0).bit_length()
