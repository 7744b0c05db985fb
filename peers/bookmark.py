"""Where a trainer was in the text, and how much it has read: all that it keeps over a restart.

It holds no weights. Without this its work would count from zero again, and the first blocks of the
text would be read twice.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from swarmnet.files import replace_text
from swarmnet.wire.messages import Count, Seconds

FILE = "bookmark.json"
_log = logging.getLogger(__name__)


class Bookmark(BaseModel):
    """Of one trainer in one run: ``begun`` samples and their ``tokens``, how long the run had
    lasted, ``reading`` as its sharing gives it (``Batches.position``), in the text whose hash is
    ``corpus``."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    run: str
    peer: str
    corpus: str
    begun: Count = 0
    tokens: Count = 0
    elapsed_s: Seconds = 0.0
    reading: dict[str, Any] | None = None

    @property
    def of(self) -> tuple[str, str, str]:
        return self.run, self.peer, self.corpus


def find(folder: Path, empty: Bookmark) -> Bookmark:
    """The one that lies in ``folder``, or ``empty`` when that is of another run, key or text."""
    path = folder / FILE
    try:
        found = Bookmark.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return empty
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        _log.warning("%s cannot be used, reading begins anew: %s", path, reason)
        return empty
    if found.of != empty.of:
        _log.warning("%s is of another run, key or text: reading begins anew", path)
        return empty
    return found


def keep(folder: Path, bookmark: Bookmark) -> None:
    """Whole or not at all. A disk that refuses costs the place, not the trainer."""
    try:
        replace_text(folder / FILE, bookmark.model_dump_json())
    except OSError as error:
        _log.debug("the bookmark was not written: %s", error)
