"""k numbers a token instead of d, without loss, in a model that never leaves k dimensions.

The residual stream is X = F[ids] + C U^T: F a frozen random embedding and U (d, k) a frozen
orthonormal basis, which all peers make for themselves from one seed. What writes into the stream
is kept in the span of U: output projections of attention and MLP with their biases, positions, and
the trained part of the token embedding, which are projected after each optimizer step. So
C = (X - F[ids]) U is all there is to send, the receiver has ids and F, and the gradient of C is
that of X times U (Protocol Models; projection as in node0). Norms before a block may learn gains,
for they do not write into the stream. Nothing behind the last cut is bound.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from swarmnet.boundary._span import FrozenRows, Span
from swarmnet.boundary._wire import Coded, CodedConfig
from swarmnet.errors import ConfigError, ModelError

OUTPUTS = {"o_proj", "down_proj", "c_proj"}  # as transformers names what writes into the stream
POSITIONS = {"wpe"}
OUTSIDE = 0.01  # of the stream's length; above what products in bfloat16 leave there


class Subspace(Coded):
    """Sends ``k`` coordinates a token; binds the weights of all stages but the last."""

    class Config(CodedConfig):
        k: int = Field(16, ge=1, description="dimensions of the stream beside the embedding")
        std: float = Field(
            1.0, gt=0, le=10, description="of the frozen embedding's numbers; far less is slower"
        )
        seed: int = Field(0, ge=0, lt=2**63, description="of the basis and the frozen embedding")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config
        self._spans: dict[int, Span] = {}
        self._frozen: dict[tuple[int, int], FrozenRows] = {}

    def features(self, width: int) -> int:
        if self.config.k > width:
            raise ConfigError(f"boundary.k = {self.config.k} is more than the width {width}")
        return self.config.k

    def sender(self, width: int, vocab: int) -> nn.Module:
        return IntoSpan(self._span(width), self._rows(vocab, width))

    def receiver(self, width: int, vocab: int) -> nn.Module:
        return OutOfSpan(self._span(width), self._rows(vocab, width))

    @torch.no_grad()
    def constrain(self, stage: nn.Module, first: bool, last: bool) -> None:
        if last:
            return
        for path, module in stage.named_modules():
            name = path.rpartition(".")[2]
            if isinstance(module, nn.Embedding):
                self._bind_embedding(module.weight, positions=name in POSITIONS)
            elif name in OUTPUTS:
                self._bind_output(module)

    def _bind_embedding(self, weight: Tensor, positions: bool) -> None:
        span = self._span(weight.shape[1])
        if positions:
            weight.copy_(span.project(weight))
        else:
            frozen = self._rows(*weight.shape).all(weight)
            weight.copy_(frozen + span.project(weight - frozen))

    def _bind_output(self, module: nn.Module) -> None:
        state = dict(module.named_parameters(recurse=False))
        # GPT-2's Conv1D holds (in, out), a Linear (out, in).
        weight = state["weight"].T if isinstance(module, nn.Linear) else state["weight"]
        span = self._span(weight.shape[1])
        weight.copy_(span.project(weight))
        if "bias" in state:
            state["bias"].copy_(span.project(state["bias"]))

    def _span(self, width: int) -> Span:
        if width not in self._spans:
            self._spans[width] = Span(width, self.features(width), self.config.seed)
        return self._spans[width]

    def _rows(self, vocab: int, width: int) -> FrozenRows:
        if (vocab, width) not in self._frozen:
            self._frozen[vocab, width] = FrozenRows(
                (vocab, width), self.config.std, self.config.seed
            )
        return self._frozen[vocab, width]


class IntoSpan(nn.Module):
    """Sender: (B, T, d) -> (B, T, k) coordinates.

    Raises:
        ModelError: what it was given is not in the span, so the model writes into the stream where
            nothing is bound: by dropout, or by a norm with gains behind a block.
    """

    def __init__(self, span: Span, frozen: FrozenRows) -> None:
        super().__init__()
        self._span, self._frozen = span, frozen

    def forward(self, hidden: Tensor, ids: Tensor) -> Tensor:
        bound = hidden - self._frozen.rows(ids, hidden)
        coordinates = bound @ self._span.matrix(hidden)
        _require_inside(hidden.detach(), bound.detach(), coordinates.detach())
        return coordinates


class OutOfSpan(nn.Module):
    """Receiver: (B, T, k) coordinates -> (B, T, d)."""

    def __init__(self, span: Span, frozen: FrozenRows) -> None:
        super().__init__()
        self._span, self._frozen = span, frozen

    def forward(self, received: Tensor, ids: Tensor) -> Tensor:
        return received @ self._span.matrix(received).T + self._frozen.rows(ids, received)


def _require_inside(hidden: Tensor, bound: Tensor, coordinates: Tensor) -> None:
    """By Pythagoras: what ``bound`` is longer than its coordinates is outside the span.

    NaN passes here, for it is not the model's shape that is at fault.
    """
    stream, beside, inside = (_squares(values) for values in (hidden, bound, coordinates))
    share = float((beside - inside) / stream)
    if share > OUTSIDE**2:
        raise ModelError(
            f"boundary subspace: {share**0.5:.0%} of the activations is outside the subspace; this "
            "model cannot be cut so (dropout, norms behind blocks, other names of projections): "
            "use boundary = 'plain'"
        )


def _squares(values: Tensor) -> Tensor:
    return values.square().sum(dtype=torch.promote_types(values.dtype, torch.float32))
