"""The text that every peer already has: the source of Python's own standard library.

About 12 MB in 730 files. Peers with other Python versions read slightly other text, which costs
nothing but comparability; the corpus hash in the events shows it.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from swarmnet.config import Section
from swarmnet.content import content_files
from swarmnet.data._corpus import HELD_OUT, corpus_hash, held_out_names, joined
from swarmnet.errors import DataError
from swarmnet.model import Tokenizer

TEST_FOLDERS = {"test", "tests", "idle_test"}


class Stdlib:
    """The standard library's packages and modules without their tests; see ``Corpus``."""

    shared = True

    class Config(Section):
        max_bytes: int = Field(0, ge=0, description="read about this much; 0 reads everything")

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        paths: Mapping[str, Path],
        cache: Path | None = None,
    ) -> None:
        """Reads the files; it needs no paths. Raises DataError without any source files."""
        self.config = config
        self.weight = 1
        files = source_files(Path(sysconfig.get_path("stdlib")))
        aside = held_out_names(files)
        limit = config.max_bytes or sys.maxsize
        kept = {name: path for name, path in files.items() if name not in aside}
        held = {name: path for name, path in files.items() if name in aside}
        self.train = joined(_texts(kept, round(limit * (1 - HELD_OUT))), tokenizer)
        self.held_out = joined(_texts(held, round(limit * HELD_OUT)), tokenizer)
        self.hash = corpus_hash(self.train, self.held_out)


def source_files(root: Path) -> dict[str, Path]:
    """Relative path -> ``*.py`` file of the library's top-level modules, sorted, without tests.

    Raises:
        DataError: an interpreter that came without its sources.
    """
    files = {}
    for module in sys.stdlib_module_names:
        single = root / f"{module}.py"
        if single.is_file():
            files[single.name] = single
        for name, path in content_files(root / module, (".py",)).items():
            if TEST_FOLDERS.isdisjoint(name.split("/")):
                files[f"{module}/{name}"] = path
    if len(files) < 2:
        raise DataError(f"{root}: this Python came without its sources; use data = 'text'")
    return dict(sorted(files.items()))


def _texts(files: Mapping[str, Path], limit: int) -> Iterator[bytes]:
    """The files' bytes in order, cut when ``limit`` bytes are read."""
    for path in files.values():
        if limit <= 0:
            return
        try:
            text = path.read_bytes()[:limit]
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        limit -= len(text)
        yield text
