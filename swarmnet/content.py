"""What names a local file or folder in a run file: a hash of what is in it, not of its place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3

DIGITS = 32
PATTERN = rf"^[0-9a-f]{{{DIGITS}}}$"


def content_files(path: Path, suffixes: Sequence[str] = ()) -> dict[str, Path]:
    """Relative name -> file, sorted by name; a single file has the name of the file itself.

    Hidden files, ``__pycache__`` and, when ``suffixes`` are given, files with other suffixes are
    left out, so that an editor or an interpreter passing by does not change the folder's hash.
    """
    if path.is_file():
        return {path.name: path}
    found = {}
    for place, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        for name in names:
            file = Path(place, name)
            wanted = not suffixes or file.suffix.lower() in suffixes
            if wanted and name[0] != "." and file.is_file():
                found[file.relative_to(path).as_posix()] = file
    return dict(sorted(found.items()))


def content_hash(path: Path, suffixes: Sequence[str] = ()) -> str:
    """32 hex digits over names and bytes; a single file's own name does not count.

    Raises:
        OSError: a file cannot be read.
    """
    whole = blake3()
    for name, file in content_files(path, suffixes).items():
        inner = blake3().update_mmap(file).digest()
        whole.update((b"" if path.is_file() else name.encode()) + b"\0" + inner)
    return whole.hexdigest(length=DIGITS // 2)
