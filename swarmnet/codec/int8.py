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
        block, vector = self.config.block, vector.detach()
        payload = torch.empty(self.nbytes(vector.numel()), dtype=torch.uint8, device=vector.device)
        scales, levels = self._parts(payload, vector.numel())
        step = SPAN // block * block
        for start in range(0, vector.numel(), step):
            part = vector[start : start + step].float()
            size, blocks = part.numel(), self._blocks(part.numel())
            if size < blocks * block:
                part = torch.nn.functional.pad(part, (0, blocks * block - size))
            part_scales, part_levels = _quantise(part.view(blocks, block), generator)
            scales[start // block :][:blocks] = part_scales
            levels[start:][:size] = part_levels.view(-1)[:size]
        return lend(to_host(payload))

    def decode(self, payload: memoryview, out: Tensor) -> Tensor:
        require_size(payload, self.nbytes(out.numel()))
        scales, levels = self._parts(borrow(payload, torch.uint8), out.numel())
        require_range(scales, 0.0, MAX_SCALE)
        scales = scales.to(out.device)
        block, numel = self.config.block, out.numel()
        out.copy_(levels)
        whole = numel // block
        out[: whole * block].view(whole, block).mul_(scales[:whole, None])
        out[whole * block :].mul_(scales[-1])
        return out

    def nbytes(self, numel: int) -> int:
        return 4 * self._blocks(numel) + numel

    def _blocks(self, numel: int) -> int:
        return -(-numel // self.config.block)

    def _parts(self, payload: Tensor, numel: int) -> tuple[Tensor, Tensor]:
        """(scales (blocks,) float32, levels (P,) int8) as views into a payload's bytes."""
        head = 4 * self._blocks(numel)
        return payload[:head].view(torch.float32), payload[head:].view(torch.int8)


def _quantise(blocks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(scales (n,), whole-numbered levels (n, block) as float32) of (n, block) float32."""
    scales = blocks.abs().amax(dim=1).div_(LEVELS)
    # Below the smallest normal float the reciprocal overflows; such a block counts as zero.
    scales.masked_fill_(scales < torch.finfo(torch.float32).tiny, 0.0)
    inverse = scales.reciprocal().masked_fill_(scales == 0.0, 0.0)
    noise = _noise(blocks, generator)
    # The noise keeps half a grain of distance to 0 and 1: a product that was rounded up or down
    # does not carry the largest magnitude over its level.
    return scales, torch.addcmul(noise, blocks, inverse[:, None]).floor_()


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in the middles of ``GRAINS`` grains of [0, 1], shaped and placed like ``like``.

    One 64-bit draw gives eight of them, which costs an eighth of ``torch.rand``.
    """
    draws = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=generator.device)
    draws.random_(-(2**63), None, generator=generator)
    octets = draws.view(torch.uint8)[: like.numel()].to(like.device).view_as(like)
    return torch.add(like.new_tensor(0.5 / GRAINS), octets, alpha=1 / GRAINS)
