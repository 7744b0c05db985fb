"""Rewrites the annotated tree in README.md from the docstrings of the files.

python docs/tree.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
START, END = "<!-- tree -->", "<!-- /tree -->"
COLUMN = 34

TOP = ("swarmnet", "peers", "configs", "docker", "docs", "tests")
ENDS = (".py", ".toml", ".sh", ".yaml", "Dockerfile")
WIDTH = 96

ABOUT = {
    "swarmnet": "the library: reads no arguments and no environment, prints nothing",
    "swarmnet/net": "the only folder that imports hivemind",
    "swarmnet/train": "a replica's state, the loop, checkpoints; nothing distributed in sight",
    "peers": "the processes that join the library's parts",
    "configs/runs": "what a swarm agrees on",
    "configs/peers": "what one machine chooses",
    "docker/Dockerfile": "one image, the role as an argument",
    "docker/compose.yaml": "a bootstrap and three peers",
    "docker/entrypoint.sh": "from the role to the command",
}
# Folders of which the tree shows no files.
CLOSED = {
    "tests/unit": "no process, no socket, no sleep",
    "tests/contracts": "one contract per choice folder, run over every name in it",
    "tests/swarm": "real processes and real libp2p on loopback",
    "tests/bench": "side by side in one run; figures, no assertions on time",
}


def main() -> None:
    """Replace what stands between the two markers."""
    readme = ROOT / "README.md"
    head, _, rest = readme.read_text(encoding="utf-8").partition(START)
    tail = rest.partition(END)[2]
    lines = [line for top in TOP for line in entries(ROOT / top, 0)]
    body = "\n".join(lines)
    readme.write_text(f"{head}{START}\n```\n{body}\n```\n{END}{tail}", encoding="utf-8")


def entries(path: Path, depth: int) -> Iterator[str]:
    """One line for ``path`` and one for everything in it that belongs to the tree."""
    name = path.relative_to(ROOT).as_posix()
    shown = f"{'  ' * depth}{path.name}{'/' if path.is_dir() else ''}"
    yield f"{shown:<{COLUMN}}{about(path)}".rstrip()
    if not path.is_dir() or name in CLOSED:
        return
    for child in sorted(path.iterdir(), key=lambda child: (child.is_dir(), child.name)):
        if belongs(child):
            yield from entries(child, depth + 1)


def belongs(path: Path) -> bool:
    """Whether the tree shows ``path``: sources and settings, and folders that hold some."""
    if path.name.startswith((".", "__")):
        return False
    return any(map(belongs, path.iterdir())) if path.is_dir() else path.name.endswith(ENDS)


def about(path: Path) -> str:
    """What ``path`` is: by the tables above, else by its own docstring or first comment."""
    name = path.relative_to(ROOT).as_posix()
    if said := ABOUT.get(name) or CLOSED.get(name):
        return said
    source = path / "__init__.py" if path.is_dir() else path
    text = source.read_text(encoding="utf-8") if source.exists() else ""
    if source.suffix == ".toml":
        return first_clause(text.replace("# ", ""))
    return first_clause(ast.get_docstring(ast.parse(text)) or "")


def first_clause(text: str) -> str:
    """The first sentence, cut at its last clause that fits the line."""
    sentence = re.split(r"\.\s+(?=[A-Z`])", " ".join(text.split("\n\n")[0].split()))[0]
    sentence = sentence.replace("``", "").rstrip(".:")
    while len(sentence) > WIDTH and (cut := max(map(sentence.rfind, (", ", ": ", "; ")))) > 24:
        sentence = sentence[:cut]
    return sentence


if __name__ == "__main__":
    main()
