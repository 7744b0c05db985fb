"""A peer's own state on disk, so that a restarted process goes on where it was.

A checkpoint is a folder ``step-000123`` with the tensors and a manifest that names their size and
hash and carries a hash of itself. It is filled under another name, flushed, and renamed when it is
whole; whoever is killed at any moment leaves the previous one untouched. A reader trusts nothing
that does not hash, and falls back to the one before.

A step that is written again while it stands puts the old folder aside as ``step-000123~`` for the
moment between two renames; a reader knows that name too.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from swarmnet.errors import StorageError

FORMAT = "swarmnet checkpoint 1"
TENSORS = "tensors.safetensors"
MANIFEST = "manifest.json"
KEPT = 2

_NAME = re.compile(r"step-(\d{6,18})(~?)")
_TEMPORARY = ".writing-"
_log = logging.getLogger(__name__)


def write(folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> int:
    """Put ``tensors`` and ``meta`` (JSON, with an integer ``step``) on disk; keep the newest two.

    One writer per folder. The tensors must not change meanwhile.

    Returns:
        Bytes written.

    Raises:
        StorageError: the disk refused; older checkpoints stand, nothing half-written is left.
    """
    name = f"step-{meta['step']:06d}"
    temporary = folder / f"{_TEMPORARY}{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for litter in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(litter)
        temporary.mkdir()
        size = _fill(temporary, tensors, meta)
        _publish(temporary, folder / name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(f"{folder}: no checkpoint could be written: {error}") from error
    _prune(folder, meta["step"])
    return size


def read(
    folder: Path, expect: Mapping[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors (on the CPU) and meta of the newest whole checkpoint, or None.

    Args:
        expect: values that ``meta`` must hold, such as the run's fingerprint; a checkpoint of
            another run is passed over like a damaged one.
    """
    for _, path in _present(folder):
        try:
            return _load(path, expect or {})
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            _log.warning("checkpoint %s is passed over: %s", path, error)
    return None


def _fill(folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> int:
    """Tensors first, manifest last, each flushed to the disk. Returns the bytes of both."""
    path = folder / TENSORS
    save_file(_apart(tensors), path)
    _flush(path)
    body = {"format": FORMAT, "bytes": path.stat().st_size, "blake3": _hash(path), "meta": meta}
    raw = json.dumps(body | {"check": _check(body)}, indent=1).encode()
    with (folder / MANIFEST).open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    _flush(folder)
    return path.stat().st_size + len(raw)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two in the same memory, which safetensors refuses."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        result[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return result


def _publish(temporary: Path, final: Path) -> None:
    aside = final.with_name(final.name + "~")
    if final.exists():
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
    temporary.rename(final)
    _flush(final.parent)


def _prune(folder: Path, step: int) -> None:
    """Drop all but the newest of those before ``step``; later ones are not this writer's."""
    before = [path for number, path in _present(folder) if number < step]
    aside = [path for number, path in _present(folder) if number == step][1:]
    for path in before[KEPT - 1 :] + aside:
        shutil.rmtree(path, ignore_errors=True)


def _present(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder), newest first; of one step, the final before the one put aside."""
    found = []
    if folder.is_dir():
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and path.is_dir():
                found.append((int(match[1]), not match[2], path))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def _load(path: Path, expect: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Raises ValueError, KeyError, TypeError, OSError or SafetensorError on anything unwhole."""
    body = json.loads((path / MANIFEST).read_bytes())
    check = body.pop("check")
    if body["format"] != FORMAT or check != _check(body):
        raise ValueError("its manifest is not one of ours, or damaged")
    tensors = path / TENSORS
    if tensors.stat().st_size != body["bytes"] or _hash(tensors) != body["blake3"]:
        raise ValueError("its tensors are torn or damaged")
    meta: dict[str, Any] = body["meta"]
    for key, value in expect.items():
        if meta.get(key) != value:
            raise ValueError(f"its {key} is {meta.get(key)!r} and not {value!r}")
    return load_file(tensors), meta


def _hash(path: Path) -> str:
    return blake3().update_mmap(path).hexdigest()


def _check(body: Mapping[str, Any]) -> str:
    return blake3(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Wait until the disk has it; for a folder, until the disk has its names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
