"""Small files that a power cut leaves whole: as they were, or as they were to be."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Put ``text`` in the place of what ``path`` held. Raises OSError; then nothing has changed."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
