"""Named tensors as one block of bytes, for a joiner: the form in which state crosses the network.

The description comes from another peer, so sizes are derived from shapes and compared with what was
received before a single tensor is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from swarmnet.errors import PayloadError

_MAX_TENSORS = 64


def pack(tensors: Mapping[str, Tensor]) -> tuple[list[list[Any]], bytearray]:
    """Description ([name, shape] each) and content, float32, in that order."""
    index: list[list[Any]] = []
    content = bytearray()
    for name, tensor in tensors.items():
        index.append([name, list(tensor.shape)])
        content += tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return index, content


def unpack(index: Any, content: bytearray) -> dict[str, Tensor]:
    """The tensors again, views of ``content``. Raises PayloadError when the two do not fit."""
    sizes = _sizes(index)
    if 4 * sum(math.prod(shape) for _, shape in sizes) != len(content):
        raise PayloadError("a state whose size is not the sum of its tensors")
    flat = torch.frombuffer(content, dtype=torch.float32)
    tensors: dict[str, Tensor] = {}
    offset = 0
    for name, shape in sizes:
        numel = math.prod(shape)
        tensors[name] = flat[offset : offset + numel].view(shape)
        offset += numel
    return tensors


def _sizes(index: Any) -> list[tuple[str, tuple[int, ...]]]:
    try:
        sizes = [(str(name), tuple(int(n) for n in shape)) for name, shape in index]
    except (TypeError, ValueError, OverflowError) as error:
        raise PayloadError("a state without a readable index") from error
    if len(sizes) > _MAX_TENSORS or any(n < 0 for _, shape in sizes for n in shape):
        raise PayloadError("a state with an absurd index")
    return sizes
