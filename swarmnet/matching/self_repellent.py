"""Random pairs that push apart: the more often two have met, the less they seek each other.

Partner j is drawn with a probability proportional to ``(1 + meetings with j)^-alpha``, the bias of
self-repellent random walks (Doshi, Hu and Eun, "Self-repellent random walks on general graphs",
ICML 2023; the kernel K_ij ~ P_ij (x_j / mu_j)^-alpha), used here to choose whom to meet and not to
move a token. Meetings are those of the own recent history, so whoever was away is not chased.
With alpha 0 the draw is uniform.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from swarmnet.config import Section
from swarmnet.matching._order import require_member, shared_order
from swarmnet.matching._pairs import Pairs


class SelfRepellent(Pairs):
    """Anybody with anybody, with odds that fall with the meetings of the recent past."""

    class Config(Section):
        alpha: float = Field(3.0, ge=0, le=100, description="strength; 0 is uniform")

    def __init__(self, config: Config) -> None:
        self.config = config

    def candidates(
        self, me: str, live: Sequence[str], history: Sequence[str], rng: random.Random
    ) -> list[str]:
        """Drawn without putting back: with rates w, the order of exponential arrival times."""
        meetings = Counter(history)

        def arrival(peer: str) -> float:
            return rng.expovariate((1.0 + meetings[peer]) ** -self.config.alpha)

        arrivals = {peer: arrival(peer) for peer in sorted(live)}
        return sorted(arrivals, key=arrivals.__getitem__)

    def partner(self, me: str, roster: Sequence[str], index: int, seed: int) -> str | None:
        """The limit of it: nobody is met twice before all others are met once.

        The circle method of tournaments, its rounds in a random order, because in their natural
        order news would travel as slowly as on a ring.
        """
        require_member(me, roster)
        order = shared_order(roster, 0, seed)
        around = len(order) - 1 + len(order) % 2
        if around < 1 or len(order) < 2:
            return None
        sweep, step = divmod(index, around)
        sums = shared_order([str(k) for k in range(around)], sweep, seed)
        place, total = order.index(me), int(sums[step])
        if place == around:  # the one in the middle, where the number is even
            return order[total * (around + 1) // 2 % around]
        other = (total - place) % around
        if other != place:
            return order[other]
        return order[around] if around < len(order) else None

    def rounds(self, n: int) -> int:
        return 2 * max(n - 1, 0).bit_length()
