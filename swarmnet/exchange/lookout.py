"""When a look into the phone book pays: it costs every reader the records of all peers.

While digests keep the view fresh, the book has little to add; where they do not reach everybody,
it is read at every other renewal or so, as without them.
"""

from __future__ import annotations

from swarmnet.exchange.membership import Membership

QUIET_RENEWALS = 1.5
QUIET_SHARE = 0.1
"""When more of the live peers than this have been quiet for so long, digests do not suffice."""
LATEST_RENEWALS = 6
"""At the latest then. Half of what rumours alone are believed for (``HEARSAY_RENEWALS``)."""


class Lookout:
    """One reader's pace. Asked at every renewal; all times on the clock of its ``Membership``."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._read_at = float("-inf")
        self.reads = 0

    def due(self, now: float) -> bool:
        """Whether the book tells something new: something asked for it, or it has been long."""
        view = self._membership
        if view.news_at >= self._read_at or now - self._read_at >= LATEST_RENEWALS * view.renew_s:
            return True
        ages = view.ages(now)
        quiet = sum(age > QUIET_RENEWALS * view.renew_s for age in ages)
        return quiet >= QUIET_SHARE * len(ages)

    def read(self, now: float) -> None:
        """The whole book was read at ``now``."""
        self._read_at = now
        self.reads += 1
