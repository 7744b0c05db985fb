"""Local text: one file, or a folder of ``.txt``, ``.md``, ``.py`` and ``.jsonl`` files.

A run names it by content hash and the peer file says where it lies, so a run file holds no paths
and all peers know that they read the same text. With a ``cache`` folder in the peer file the text
is tokenised once, piece by piece, and read from the disk: it may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from swarmnet import content
from swarmnet.config import Section
from swarmnet.data._cache import cached
from swarmnet.data._files import content_hash, read_split, text_files, write_split
from swarmnet.data._ids import Ids, Split
from swarmnet.errors import DataError
from swarmnet.model import Tokenizer, id_type

__all__ = ["Text", "content_hash", "split"]


class Text:
    """A local file or folder; see ``Corpus``. In JSON-lines files the field ``text`` counts.

    A folder of 20 files or more is split by file; with fewer, the last 5 % of each file are held
    out.
    """

    shared = True

    class Config(Section):
        hash: str = Field(pattern=content.PATTERN, description="content hash of file or folder")

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        paths: Mapping[str, Path],
        cache: Path | None = None,
    ) -> None:
        """Raises DataError when the text is missing, empty, malformed or not the run's."""
        self.config = config
        self.weight = 1
        if config.hash not in paths:
            raise DataError(f"text {config.hash}: name its place under [texts] in the peer file")
        path = paths[config.hash]
        self.train, self.held_out, self.hash = split(path, config.hash, tokenizer, cache)


def split(path: Path, digest: str, tokenizer: Tokenizer, cache: Path | None) -> Split:
    """The text at ``path`` as ids, in memory or, with ``cache``, mapped from there.

    What is in the cache was checked when it was made; the text itself is not read again.

    Raises:
        DataError: as ``Text``. StorageError: the cache cannot be written.
    """

    def checked() -> dict[str, Path]:
        actual = content_hash(path)
        if actual != digest:
            raise DataError(f"{path}: is another text ({actual}) than the run's ({digest})")
        return text_files(path)

    def write(train: Ids, held_out: Ids) -> None:
        write_split(checked(), tokenizer, train, held_out)
        _refuse_too_little(path, held_out.size)

    if cache is not None:
        kind = id_type(tokenizer.vocab_size)
        return cached(cache, f"{digest}-{tokenizer.name}", kind, write)
    made = read_split(checked(), tokenizer)
    _refuse_too_little(path, made.held_out.size)
    return made


def _refuse_too_little(path: Path, held_out: int) -> None:
    if held_out < 2:
        raise DataError(f"{path}: too little text to hold out 5 % of it")
