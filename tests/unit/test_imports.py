"""The shape of the house, read from the source with ``ast``: nothing here imports the project."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for package in ("swarmnet", "peers") for path in (ROOT / package).rglob("*.py")
)
MAX_LINES = 600

# What each part of swarmnet may import of the others. A part may always import itself.
_BASE = {"errors", "registry", "events"}
_CONFIG = _BASE | {"config"}
_SETTLED = _CONFIG | {"content", "wire"}
_CHOICES = (
    *("codec", "matching", "reduce", "inner", "outer", "cadence", "model", "data"),
    "sharing",
    *("wiring", "boundary"),
)
_BESIDE = {"errors", "events", "config", "wire", "exchange", "pipeline"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "registry": {"errors"},
    "events": {"errors"},
    "content": {"errors"},
    "files": set(),
    "config": _BASE,
    "wire": _BASE,
    **dict.fromkeys(_CHOICES, _SETTLED),
    # A corpus holds token ids, so it needs the model's tokenizer protocol; batches are shared out.
    "data": _SETTLED | {"model", "sharing"},
    # A stage ends in what its boundary sends.
    "model": _SETTLED | {"boundary"},
    # What crosses a cut is coded by the run's codecs.
    "boundary": _SETTLED | {"codec"},
    "exchange": _SETTLED.union(_CHOICES),
    # What a stage peer and a trainer decide and say; the weights themselves are train's business.
    # What one machine hears of its own end; nobody else in the library needs it.
    "notice": _CONFIG,
    "pipeline": _SETTLED.union(_CHOICES, {"exchange"}),
    "train": _SETTLED.union(_CHOICES, {"exchange", "pipeline"}),
    "net": _BESIDE | {"files"},
    "sim": _BESIDE,
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The layer of ``swarmnet.codec.int8``: ``codec``; empty for swarmnet itself and others."""
    names = module.split(".")
    return names[1] if names[0] == "swarmnet" and len(names) > 1 else ""


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything imported, also inside functions."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            yield node.lineno, base
            for alias in node.names:
                if is_module(f"{base}.{alias.name}"):
                    yield node.lineno, f"{base}.{alias.name}"


def problems(paths: list[Path], allowed) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for line, name in imports(path)
        if not allowed(path, name)
    ]


def test_there_are_sources():
    assert len(SOURCES) > 10


def test_every_part_of_the_library_has_a_layer():
    parts = {part_of(module_of(path)) for path in SOURCES} - {""}
    assert parts <= MAY_IMPORT.keys()


def test_layers_are_acyclic():
    def visit(part: str, above: tuple[str, ...]) -> None:
        assert part not in above, f"{' -> '.join(above)} -> {part}"
        for below in MAY_IMPORT[part]:
            visit(below, (*above, part))

    for part in MAY_IMPORT:
        visit(part, ())


def test_imports_point_one_way():
    def allowed(path: Path, name: str) -> bool:
        mine, theirs = part_of(module_of(path)), part_of(name)
        return not mine or not theirs or theirs == mine or theirs in MAY_IMPORT[mine]

    assert problems(SOURCES, allowed) == []


def test_swarmnet_itself_imports_none_of_its_parts():
    def allowed(_path: Path, name: str) -> bool:
        return not part_of(name)

    assert problems([ROOT / "swarmnet" / "__init__.py"], allowed) == []


def test_the_library_does_not_import_peers():
    def allowed(path: Path, name: str) -> bool:
        return not module_of(path).startswith("swarmnet") or name.split(".")[0] != "peers"

    assert problems(SOURCES, allowed) == []


def test_only_net_imports_hivemind():
    def allowed(path: Path, name: str) -> bool:
        return name.split(".")[0] != "hivemind" or part_of(module_of(path)) == "net"

    assert problems(SOURCES, allowed) == []


@pytest.mark.parametrize("forbidden", ["net", "sim"])
def test_only_peers_join_net_and_sim(forbidden):
    def allowed(path: Path, name: str) -> bool:
        module = module_of(path)
        return (
            part_of(name) != forbidden
            or part_of(module) == forbidden
            or module.split(".")[0] == "peers"
        )

    assert problems(SOURCES, allowed) == []


def test_the_library_reads_no_environment_and_prints_nothing():
    found = []
    for path in SOURCES:
        if not module_of(path).startswith("swarmnet"):
            continue
        for node in ast.walk(tree(path)):
            if _is_outside(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)[:60]}")
    assert found == []


def test_only_the_command_line_reads_arguments_and_environment():
    found = []
    for path in SOURCES:
        if module_of(path) == "peers.cli":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (*_ENVIRON, "sys.argv"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert found == []


def test_no_file_is_too_long():
    tests = sorted((ROOT / "tests").rglob("*.py"))
    lengths = {path: len(path.read_text().splitlines()) for path in [*SOURCES, *tests]}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_no_file_is_named_after_no_thing():
    assert [path for path in SOURCES if path.stem in ("utils", "manager", "helpers")] == []


_ENVIRON = ("os.environ", "os.getenv", "os.putenv", "os.environb")


def _is_outside(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) in (*_ENVIRON, "sys.argv", "sys.stdout", "sys.stderr")
    if isinstance(node, ast.ImportFrom) and node.module in ("os", "sys"):
        return any(alias.name in ("environ", "getenv", "argv", "stdout") for alias in node.names)
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return is_call and node.func.id in ("print", "input")
