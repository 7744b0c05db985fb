"""Tensors to one safetensors file in a single pass: written, hashed and flushed beside training.

The file is what ``safetensors`` reads: the length of a JSON header (8 bytes, little endian), the
header, the tensors. It is written here, slice by slice, because a writer that runs beside training
must neither copy the state once more nor hold the interpreter: every slice is hashed and written
outside of it, and between two slices the writer rests.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from blake3 import blake3
from torch import Tensor

SLICE = 1 << 20
"""What was hashed is still in the cache when it is written."""
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}
_NO_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""A file system that cannot reserve room: then it runs out of it while it is written."""

Rest = Callable[[float], None]
"""Told how many seconds were just worked; may sleep."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], rest: Rest) -> tuple[int, str]:
    """Write a new file and wait until the disk has it. Returns its bytes and its blake3 in hex.

    Raises:
        OSError: the disk refused; with ENOSPC before anything was written, where it can say so.
        KeyError: a tensor of a type that is in no state of ours.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header = _header(ordered)
    size = len(header) + sum(tensor.numel() * tensor.element_size() for _, tensor in ordered)
    digest = blake3()
    with path.open("xb", buffering=0) as file:
        _reserve(file.fileno(), size)
        for piece in _pieces(header, ordered):
            began = time.perf_counter()
            digest.update(piece)
            left = piece
            while left:
                left = left[file.write(left) :]
            rest(time.perf_counter() - began)
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _header(ordered: list[tuple[str, Tensor]]) -> bytes:
    entries: dict[str, object] = {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    raw = json.dumps(entries).encode()
    raw += b" " * (-len(raw) % 8)  # tensors begin at a multiple of their items' size
    return len(raw).to_bytes(8, "little") + raw


def _pieces(header: bytes, ordered: list[tuple[str, Tensor]]) -> Iterator[memoryview]:
    yield memoryview(header)
    for _, tensor in ordered:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content = flat.numpy().data
        for start in range(0, len(content), SLICE):
            yield content[start : start + SLICE]


def _reserve(handle: int, size: int) -> None:
    """Find out now whether the disk has room, not after most of it was written."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in _NO_RESERVE:
            raise
