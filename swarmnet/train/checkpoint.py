"""A peer's own state on disk, so that a restarted process goes on where it was.

A checkpoint is a folder ``000017-step-000123``: the 17th that was written here, after step 123. It
holds the tensors and a manifest that names their size and hash, the folder, and carries a hash of
itself. It is filled under another name, flushed, and renamed when it is whole; one that goes is
renamed before it is deleted. So whoever is killed at any moment leaves whole ones only. A reader
trusts nothing that does not hash, and falls back to the one before.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from swarmnet.errors import StorageError
from swarmnet.train.ring import Entry, Ring
from swarmnet.train.tensorfile import Rest, write_tensors

FORMAT = "swarmnet checkpoint 2"
TENSORS = "tensors.safetensors"
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20

_NAME = re.compile(r"(?:(\d{6,18})-)?step-(\d{6,18})~?")
_WRITING, _DROPPING = ".writing-", ".dropping-"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)

Kept = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors (on the CPU) and meta of one checkpoint."""


class ForeignError(ValueError):
    """Whole, but of another run, stage or format: nobody's fault and not ours to delete."""


Unwhole = (OSError, ValueError, KeyError, TypeError, SafetensorError)


@dataclass(frozen=True)
class Written:
    """``dropped``: older ones that were given up because the disk was full."""

    bytes: int
    dropped: int = 0


def write(
    folder: Path,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    ring: Ring | None = None,
    rest: Rest = lambda _: None,
) -> Written:
    """Put ``tensors`` and ``meta`` (JSON, with an integer ``step``) on disk; keep ``ring``.

    One writer per folder. The tensors must not change meanwhile. On a full disk the oldest of the
    ring goes and the write is tried again; the newest whole one always stays.

    Raises:
        StorageError: the disk refused; older checkpoints stand, nothing half-written is left.
    """
    ring, dropped = ring or Ring(), 0
    while True:
        try:
            size = _write(folder, tensors, meta, rest)
        except OSError as error:
            _clear(folder)
            if error.errno in _FULL and _make_room(folder, ring):
                dropped += 1
                continue
            raise StorageError(f"{folder}: no checkpoint could be written: {error}") from error
        _prune(folder, ring)
        return Written(size, dropped)


def whole(
    folder: Path, expect: Mapping[str, Any], passed: Callable[[Path, Exception], None]
) -> Iterator[Kept]:
    """The whole checkpoints, newest first; each other one is told to ``passed`` with the reason.

    Args:
        expect: values that ``meta`` must hold, such as the run's fingerprint; a checkpoint of
            another run is passed over with a ``ForeignError``.
    """
    for _, path in _present(folder):
        try:
            kept = _load(path, expect)
        except Unwhole as error:
            passed(path, error)
        else:
            yield kept


def read(folder: Path, expect: Mapping[str, Any] | None = None) -> Kept | None:
    """The newest whole checkpoint, or None; a warning for each that was passed over."""
    return next(whole(folder, expect or {}, _warn), None)


def _warn(path: Path, error: Exception) -> None:
    _log.warning("checkpoint %s is passed over: %s", path, error)


# ---- writing ------------------------------------------------------------------------------------


def _write(folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], rest: Rest) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    present = _present(folder)
    serial = 1 + max((serial for serial, _ in present), default=0)
    name = f"{serial:06d}-step-{meta['step']:06d}"
    temporary = folder / f"{_WRITING}{name}"
    temporary.mkdir()
    size = _fill(temporary, name, tensors, meta, rest)
    temporary.rename(folder / name)
    _flush(folder)
    return size


def _fill(
    folder: Path, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], rest: Rest
) -> int:
    """Tensors first, manifest last, each flushed to the disk. Returns the bytes of both."""
    size, digest = write_tensors(folder / TENSORS, tensors, rest)
    body = {"format": FORMAT, "name": name, "bytes": size, "blake3": digest, "meta": meta}
    raw = json.dumps(body | {"check": _check(body)}, indent=1).encode()
    with (folder / MANIFEST).open("xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    _flush(folder)
    return size + len(raw)


def _clear(folder: Path) -> None:
    """Remove what a killed writer left half-written or half-deleted."""
    for prefix in (_WRITING, _DROPPING):
        for litter in folder.glob(f"{prefix}*"):
            shutil.rmtree(litter, ignore_errors=True)


def _drop(path: Path) -> None:
    """Gone at once under its name: a kill within the deletion leaves no torn checkpoint."""
    away = path.with_name(f"{_DROPPING}{path.name}")
    with suppress(OSError):
        path.rename(away)
        shutil.rmtree(away)


def _prune(folder: Path, ring: Ring) -> None:
    """Delete what is not to stay, and damaged ones once they are older than the newest few."""
    own, damaged = _own(folder, ring)
    staying = ring.staying([entry for entry, _ in own])
    for entry, path in own:
        if entry.serial not in staying:
            _drop(path)
    for serial, path in damaged:
        if serial < min(staying, default=0):
            _drop(path)


def _make_room(folder: Path, ring: Ring) -> bool:
    """Give up the oldest of the own ones, if a newer one is whole to the last bit."""
    own, _ = _own(folder, ring)
    for _, path in own[:0:-1]:
        with suppress(*Unwhole):
            _load(path, ring.owner)
            _drop(own[0][1])
            return True
    return False


def _own(folder: Path, ring: Ring) -> tuple[list[tuple[Entry, Path]], list[tuple[int, Path]]]:
    """The ring's own checkpoints, oldest first, and those whose manifest cannot be read."""
    own, damaged = [], []
    for serial, path in reversed(_present(folder)):
        try:
            meta = _manifest(path, ring.owner)["meta"]
            own.append((Entry(serial, float(meta.get("elapsed_s", 0.0))), path))
        except ForeignError:
            continue
        except Unwhole:
            damaged.append((serial, path))
    return own, damaged


# ---- reading ------------------------------------------------------------------------------------


def _present(folder: Path) -> list[tuple[int, Path]]:
    """(serial, folder), newest first; names of an older format have no serial and come last."""
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and path.is_dir():
                found.append((int(match[1] or 0), int(match[2]), path))
    return [(serial, path) for serial, _, path in sorted(found, reverse=True)]


def _manifest(path: Path, expect: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ForeignError, or one of ``Unwhole`` on anything that is not as it was written."""
    manifest = path / MANIFEST
    if manifest.stat().st_size > MAX_MANIFEST_BYTES:
        raise ValueError("its manifest is of an absurd size")
    body: dict[str, Any] = json.loads(manifest.read_bytes())
    check = body.pop("check")
    if check != _check(body):
        raise ValueError("its manifest is damaged, or not one of ours")
    if body["format"] != FORMAT:
        raise ForeignError(f"its format is {body['format']!r} and not {FORMAT!r}")
    if body["name"] != path.name:
        raise ValueError(f"it was written as {body['name']}")
    for key, value in expect.items():
        if body["meta"].get(key) != value:
            raise ForeignError(f"its {key} is {body['meta'].get(key)!r} and not {value!r}")
    return body


def _load(path: Path, expect: Mapping[str, Any]) -> Kept:
    """Raises one of ``Unwhole``."""
    body = _manifest(path, expect)
    tensors = path / TENSORS
    if tensors.stat().st_size != body["bytes"] or _hash(tensors) != body["blake3"]:
        raise ValueError("its tensors are torn or damaged")
    return load_file(tensors), body["meta"]


def _hash(path: Path) -> str:
    return blake3().update_mmap(path).hexdigest()


def _check(body: Mapping[str, Any]) -> str:
    return blake3(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _flush(folder: Path) -> None:
    """Wait until the disk has the folder's names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
