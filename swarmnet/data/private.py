"""Text that only this peer has: the peer file names it ``private`` under ``[texts]``.

The run does not name it and nobody checks it. Everybody reads all of its own (``sharing = "own"``)
and holds out 5 % of its own, so losses of two peers are not of one text. Where the outer rule
weighs contributions, a peer counts by the size of its text: ``(tokens / reference) ** power``,
within 1/16 to 16, times what else it counts by. A peer says that of itself; another one outweighs
it by 16 at most whatever it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from swarmnet.config import Section
from swarmnet.data._files import content_hash
from swarmnet.data.text import split
from swarmnet.errors import DataError
from swarmnet.model import Tokenizer

NAME = "private"
UNIT = 16
"""The weight of a text of the reference's size, so that a sixteenth of it is still a number."""


class Private:
    """This peer's own file or folder, read as ``text`` reads one; see ``Corpus``."""

    shared = False

    class Config(Section):
        power: float = Field(
            0.5, ge=0, le=1, description="1: count by size, 0: all alike, 0.5: by its square root"
        )
        reference: int = Field(1_000_000, gt=0, description="tokens of a text of weight one")

        @property
        def unequal(self) -> bool:
            """Peers of a run may count differently."""
            return self.power > 0

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        paths: Mapping[str, Path],
        cache: Path | None = None,
    ) -> None:
        """Raises DataError when the text is not named, missing, empty or malformed."""
        self.config = config
        if NAME not in paths:
            raise DataError(f"this run reads texts of its peers: name yours, texts.{NAME} = ...,"
                            " in the peer file")  # fmt: skip
        path = paths[NAME]
        self.train, self.held_out, self.hash = split(path, content_hash(path), tokenizer, cache)
        self.weight = participation(self.train.size, config)


def participation(tokens: int, config: Private.Config) -> int:
    """How much a text of so many tokens counts, 1 to 256; one of the reference's size counts 16."""
    ratio: float = (max(tokens, 1) / config.reference) ** config.power
    return round(UNIT * min(max(ratio, 1 / UNIT), UNIT))
