"""What boundaries share that send ``width / c`` features: the size, and the way back."""

from __future__ import annotations

from torch import Tensor, nn

from swarmnet.errors import ConfigError


def narrowed(width: int, c: int) -> int:
    """``width / c``. Raises ConfigError where that is no whole number above 1."""
    if width % c or width // c < 2:
        raise ConfigError(
            f"boundary: c = {c} leaves no whole number of 2 or more features of {width}"
        )
    return width // c


class Widen(nn.Module):
    """Receiver: (B, T, d/c) -> (B, T, d). No residual goes around it."""

    def __init__(self, width: int, c: int) -> None:
        super().__init__()
        self.linear = nn.Linear(narrowed(width, c), width)

    def forward(self, received: Tensor, ids: Tensor) -> Tensor:
        widened: Tensor = self.linear(received)
        return widened
