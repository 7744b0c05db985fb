"""Notices: how a machine hears that it is about to be taken away, a minute or two before it is."""

from __future__ import annotations

from typing import Protocol


class Notice(Protocol):
    """Asked every few seconds, in a thread of its own."""

    def look(self) -> str | None:
        """Why this machine will be taken; None: no notice yet. Returns within a few seconds.

        Raises:
            OSError: it cannot be asked now.
        """
        ...
