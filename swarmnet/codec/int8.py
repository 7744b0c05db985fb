"""About one byte a value: blocks of 8-bit levels under one float32 scale each.

Payload: ``ceil(P / block)`` scales (float32), then P levels (int8). A block's scale is its
largest magnitude over 127, so an outlier costs precision in its own block only. Levels are
rounded stochastically: up with a probability equal to the fraction, so the expected decoded
value is the value itself (to 2^-9 of a level, half a grain of the noise), and errors of many
meetings average out where rounding to the nearest would keep pulling the same way.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from swarmnet.codec._buffers import borrow, lend, require_range, require_size, to_host
from swarmnet.config import Section

LEVELS = 127
SPAN = 2**16  # values quantised at a time: temporaries stay in the cache and their memory bounded
GRAINS = 2**8
# Any int8 level times a scale up to here is finite, also -128, which no encoder of ours sends.
MAX_SCALE = torch.finfo(torch.float32).max / 128


class Int8:
    """The codec for thin links: a quarter of raw, an absolute error below one block scale."""

    class Config(Section):
        block: int = Field(256, ge=8, le=SPAN, description="values under one scale")

    as_is = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def encode(self, vector: Tensor, generator: torch.Generator) -> memoryview:
        numel, block, values = vector.numel(), self.config.block, vector.detach().float()
        payload = torch.empty(self.nbytes(numel), dtype=torch.uint8, device=vector.device)
        scales, levels = self._parts(payload, numel)
        whole = numel // block
        if whole:
            _quantise(values[: whole * block], levels[: whole * block], scales[:whole], generator)
        if whole * block < numel:
            _quantise(values[whole * block :], levels[whole * block :], scales[whole:], generator)
        return lend(to_host(payload))

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        require_size(payload, self.nbytes(out.numel()))
        scales, levels = self._parts(borrow(payload, torch.uint8), out.numel())
        require_range(scales, 0.0, MAX_SCALE)
        scales = scales.to(out.device)
        block, numel = self.config.block, out.numel()
        step = SPAN // block * block
        for start in range(0, numel, step):
            place = out[start : start + step]
            place.copy_(levels[start : start + step])
            whole = len(place) // block
            own_scales = scales[start // block :][: whole + 1]
            place[: whole * block].view(whole, block).mul_(own_scales[:whole, None])
            place[whole * block :].mul_(own_scales[-1])
        return out

    def nbytes(self, numel: int) -> int:
        return 4 * self._blocks(numel) + numel

    def _blocks(self, numel: int) -> int:
        return -(-numel // self.config.block)

    def _parts(self, payload: Tensor, numel: int) -> tuple[Tensor, Tensor]:
        """(scales (blocks,) float32, levels (P,) int8) as views into a payload's bytes."""
        head = 4 * self._blocks(numel)
        return payload[:head].view(torch.float32), payload[head:].view(torch.int8)


def _quantise(values: Tensor, levels: Tensor, scales: Tensor, generator: torch.Generator) -> None:
    """Fill ``scales`` (n,) and ``levels`` from float32 ``values``: n equal blocks."""
    blocks, levels = values.view(len(scales), -1), levels.view(len(scales), -1)
    torch.maximum(blocks.amax(dim=1), blocks.amin(dim=1).neg_(), out=scales)
    scales.div_(LEVELS)
    # Below the smallest normal float the reciprocal overflows; such a block counts as zero.
    scales.masked_fill_(scales < torch.finfo(torch.float32).tiny, 0.0)
    inverse = scales.reciprocal().masked_fill_(scales == 0.0, 0.0)[:, None]
    octets = _octets(values, generator).view_as(blocks)
    # The noise keeps half a grain of distance to 0 and 1: a product that was rounded up or down
    # does not carry the largest magnitude over its level.
    half = values.new_tensor(0.5 / GRAINS)
    rows = max(1, SPAN // blocks.shape[1])
    place = blocks.new_empty(min(rows, len(blocks)), blocks.shape[1])
    for start in range(0, len(blocks), rows):
        span = slice(start, start + rows)
        noise = place[: len(blocks[span])]
        torch.add(half, octets[span], alpha=1 / GRAINS, out=noise)
        torch.addcmul(noise, blocks[span], inverse[span], out=noise)
        levels[span] = noise.floor_()


def _octets(like: Tensor, generator: torch.Generator) -> Tensor:
    """A uniform byte for each value of ``like``, on its device.

    One 64-bit draw gives eight of them, which costs an eighth of ``torch.rand``.
    """
    draws = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=generator.device)
    draws.random_(-(2**63), None, generator=generator)
    return draws.view(torch.uint8)[: like.numel()].to(like.device)
